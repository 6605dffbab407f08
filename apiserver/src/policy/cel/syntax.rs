//! From the text of an expression to its tree. The parser is that of the crate `cel`; its
//! evaluator is not used, because it counts nothing of what it takes.

use std::collections::HashSet;
use std::sync::Arc;

use cel::common::ast::{self, EntryExpr, IdedExpr, LiteralValue};
use cel::parser::Parser;

use super::value::{self, JSON_PATCH, OBJECT, Text, Val};
use super::{MAX_DEPTH, functions, message};

/// A part of an expression.
#[derive(Clone, Debug)]
pub enum Expr {
    Literal(Literal),
    Ident(String),
    /// `of.field`; `dotted` is all of it if it is nothing but names.
    Select {
        of: Box<Expr>,
        field: String,
        dotted: Option<String>,
    },
    /// `has(of.field)`.
    Has {
        of: Box<Expr>,
        field: String,
    },
    Call {
        name: String,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    /// Items, with whether they are optional.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    /// An object of a named type, or a message; fields with whether they are optional.
    Object {
        name: Arc<str>,
        fields: Vec<(Arc<str>, Expr, bool)>,
    },
    Fold(Box<Fold>),
    Each(Box<Each>),
    Let {
        name: String,
        value: Box<Expr>,
        body: Box<Expr>,
    },
}

/// A comprehension, as the parser makes it of a macro.
#[derive(Clone, Debug)]
pub struct Fold {
    pub range: Expr,
    pub item: String,
    pub collected: String,
    pub first: Expr,
    pub goes_on: Expr,
    pub step: Expr,
    pub result: Expr,
}

/// A macro that the parser leaves as it is: over keys (or positions) and values, over the
/// value of an optional, or over items that are sorted.
#[derive(Clone, Debug)]
pub struct Each {
    pub what: What,
    pub range: Expr,
    pub key: String,
    pub value: String,
    pub filter: Option<Expr>,
    pub body: Expr,
}

/// See [`Each`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    All,
    Exists,
    ExistsOne,
    TransformList,
    TransformMap,
    TransformMapEntry,
    SortBy,
    OptMap,
    OptFlatMap,
}

/// A constant.
#[derive(Clone, Debug)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Arc<str>),
    Bytes(Arc<[u8]>),
}

impl Literal {
    /// Its value, which shares what is here.
    pub fn value<'a>(&self) -> Val<'a> {
        match self {
            Self::Null => Val::Null,
            Self::Bool(value) => Val::Bool(*value),
            Self::Int(value) => Val::Int(*value),
            Self::Uint(value) => Val::Uint(*value),
            Self::Double(value) => Val::Double(*value),
            Self::Text(text) => Val::Text(Text::Shared(text.clone())),
            Self::Bytes(bytes) => Val::Bytes(bytes.clone()),
        }
    }
}

/// Bytes of an expression.
const LONGEST: usize = 64 * 1024;
/// Brackets in brackets.
const BRACKETS: usize = 100;
/// Bytes of the stack that the parser has: it takes a hundred thousand for a bracket in a
/// bracket, and a thousand for an operator in a row of them. What is not used is not taken.
const STACK: usize = 256 * 1024 * 1024;

/// The tree of an expression in which nothing is unknown.
///
/// # Errors
/// What is wrong with it.
pub fn parse(source: &str, known: &[&str]) -> Result<Expr, String> {
    if source.len() > LONGEST {
        return Err(format!(
            "compilation failed: it has more than {LONGEST} bytes"
        ));
    }
    if brackets(source) > BRACKETS {
        return Err("compilation failed: the expression is nested too deep".to_owned());
    }
    let broken = || Err("compilation failed: the parser could not be run".to_owned());
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let parsed = thread.spawn_scoped(scope, || read(source, known));
        match parsed.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(parsed)) => parsed,
            Ok(Err(_)) | Err(_) => broken(),
        }
    })
}

/// How deep brackets are in brackets; those in texts count as well.
fn brackets(source: &str) -> usize {
    let (mut depth, mut most) = (0_usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => {
                depth += 1;
                most = most.max(depth);
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    most
}

fn read(source: &str, known: &[&str]) -> Result<Expr, String> {
    // The parser counts several levels of its grammar for one of the expression.
    let parser = Parser::new()
        .enable_optional_syntax(true)
        .enable_ident_escape_syntax(true);
    let parsed = parser.parse(source).map_err(|errors| {
        let text = apiservice::told::cut(errors.to_string(), apiservice::told::MAX_TEXT);
        format!("compilation failed: {text}")
    })?;
    let mut reader = Reader {
        names: known.iter().map(|name| (*name).to_owned()).collect(),
    };
    let read = reader.read(&parsed, 0);
    read.map_err(|why| format!("compilation failed: {why}"))
}

struct Reader {
    /// What may be named at this place.
    names: Vec<String>,
}

impl Reader {
    fn boxed(&mut self, expr: &IdedExpr, depth: usize) -> Result<Box<Expr>, String> {
        self.read(expr, depth).map(Box::new)
    }

    fn all(&mut self, exprs: &[IdedExpr], depth: usize) -> Result<Vec<Expr>, String> {
        exprs.iter().map(|expr| self.read(expr, depth)).collect()
    }

    /// With more names.
    fn within(&mut self, names: &[&str], expr: &IdedExpr, depth: usize) -> Result<Expr, String> {
        let before = self.names.len();
        self.names
            .extend(names.iter().map(|name| (*name).to_owned()));
        let read = self.read(expr, depth);
        self.names.truncate(before);
        read
    }

    fn read(&mut self, expr: &IdedExpr, depth: usize) -> Result<Expr, String> {
        if depth > MAX_DEPTH {
            return Err("the expression is nested too deep".to_owned());
        }
        let below = depth + 1;
        Ok(match &expr.expr {
            ast::Expr::Unspecified => return Err("an expression is missing".to_owned()),
            ast::Expr::Literal(literal) => Expr::Literal(read_literal(literal)),
            ast::Expr::Ident(name) => {
                let name = name.trim_start_matches('.').to_owned();
                if !self.names.contains(&name) && value::type_of_name(&name).is_none() {
                    return Err(format!(
                        "undeclared reference to '{name}' (in container '')"
                    ));
                }
                Expr::Ident(name)
            }
            ast::Expr::Select(select) => {
                let field = select.field.clone();
                let (constant, number) = message::NULL_VALUE;
                let dotted = dotted(&expr.expr, NAMES_OF_TYPES);
                if dotted.as_deref() == Some(constant) {
                    return Ok(Expr::Literal(Literal::Int(number)));
                }
                if let (Some(dotted), false) = (dotted, select.test)
                    && value::type_of_name(&dotted).is_some()
                {
                    return Ok(Expr::Select {
                        of: Box::new(Expr::Literal(Literal::Null)),
                        field,
                        dotted: Some(dotted),
                    });
                }
                let of = self.boxed(&select.operand, below)?;
                match select.test {
                    true => Expr::Has { of, field },
                    false => Expr::Select {
                        of,
                        field,
                        dotted: None,
                    },
                }
            }
            ast::Expr::Call(call) => return self.call(call, below),
            ast::Expr::List(list) => {
                let items = list.elements.iter().enumerate();
                let read = |(at, item)| {
                    let optional = list.optional_indices.contains(&at);
                    Ok((self.read(item, below)?, optional))
                };
                Expr::List(items.map(read).collect::<Result<_, String>>()?)
            }
            ast::Expr::Map(map) => {
                let mut entries = Vec::new();
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err("a field of a message stands in a map".to_owned());
                    };
                    let key = self.read(&entry.key, below)?;
                    let value = self.read(&entry.value, below)?;
                    entries.push((key, value, entry.optional));
                }
                Expr::Map(entries)
            }
            ast::Expr::Struct(of) => return self.object(of, below),
            ast::Expr::Comprehension(fold) => {
                if fold.iter_var2.is_some() {
                    return Err("a comprehension has two variables".to_owned());
                }
                let range = self.read(&fold.iter_range, below)?;
                let first = self.read(&fold.accu_init, below)?;
                let both = [fold.accu_var.as_str(), fold.iter_var.as_str()];
                Expr::Fold(Box::new(Fold {
                    range,
                    first,
                    goes_on: self.within(&both, &fold.loop_cond, below)?,
                    step: self.within(&both, &fold.loop_step, below)?,
                    result: self.within(&both[..1], &fold.result, below)?,
                    item: fold.iter_var.clone(),
                    collected: fold.accu_var.clone(),
                }))
            }
        })
    }

    /// `Object.spec{...}` or `JSONPatch{...}`, where they may be named, or a message.
    fn object(&mut self, of: &ast::StructExpr, depth: usize) -> Result<Expr, String> {
        let name = of.type_name.trim_start_matches('.');
        let root = name.split('.').next().unwrap_or_default();
        let known = root == OBJECT || name == JSON_PATCH;
        let known = known && self.names.iter().any(|known| known == root);
        let message = message::fields(name);
        if !known && message.is_none() {
            return Err(format!(
                "undeclared reference to '{name}' (in container '')"
            ));
        }
        let mut fields: Vec<(Arc<str>, Expr, bool)> = Vec::with_capacity(of.entries.len());
        let mut seen = HashSet::with_capacity(of.entries.len());
        for entry in &of.entries {
            let EntryExpr::StructField(entry) = &entry.expr else {
                return Err("an entry of a map stands in an object".to_owned());
            };
            let field = entry.field.as_str();
            if name == JSON_PATCH && !["op", "path", "from", "value"].contains(&field) {
                return Err(format!("unexpected JSONPatchType field: {field}"));
            }
            if message.is_some_and(|fields| !fields.contains(&field)) {
                return Err(format!("undefined field '{field}'"));
            }
            if !seen.insert(field) {
                return Err(format!("repeated field '{field}'"));
            }
            fields.push((
                field.into(),
                self.read(&entry.value, depth)?,
                entry.optional,
            ));
        }
        Ok(Expr::Object {
            name: name.into(),
            fields,
        })
    }

    fn call(&mut self, call: &ast::CallExpr, depth: usize) -> Result<Expr, String> {
        let name = call.func_name.as_str();
        if let Some(read) = self.macros(call, depth) {
            return read;
        }
        // Functions with a namespace: the parser takes the namespace for a value.
        if let Some(target) = &call.target
            && let ast::Expr::Ident(space) = &target.expr
            && !self.names.contains(space)
        {
            let qualified = format!("{space}.{name}");
            if !functions::is_known(&qualified) {
                return Err(format!(
                    "undeclared reference to '{qualified}' (in container '')"
                ));
            }
            return Ok(Expr::Call {
                name: qualified,
                target: None,
                args: self.all(&call.args, depth)?,
            });
        }
        let target = call.target.as_deref();
        let target = target.map(|target| self.boxed(target, depth)).transpose()?;
        if !functions::is_known(name) {
            return Err(format!(
                "undeclared reference to '{name}' (in container '')"
            ));
        }
        Ok(Expr::Call {
            name: name.to_owned(),
            target,
            args: self.all(&call.args, depth)?,
        })
    }

    /// What is a macro in Kubernetes and a call to the parser.
    fn macros(&mut self, call: &ast::CallExpr, depth: usize) -> Option<Result<Expr, String>> {
        let target = call.target.as_deref()?;
        let ident = |expr: &IdedExpr| match &expr.expr {
            ast::Expr::Ident(name) => Some(name.clone()),
            _ => None,
        };
        let bind = ident(target).as_deref() == Some("cel") && call.func_name == "bind";
        if let (true, [name, value, body]) = (bind, call.args.as_slice()) {
            let name = ident(name)?;
            return Some((|| {
                let value = self.boxed(value, depth)?;
                let body = Box::new(self.within(&[&name], body, depth)?);
                Ok(Expr::Let { name, value, body })
            })());
        }
        let (what, key, value, filter, body) = match (call.func_name.as_str(), &call.args[..]) {
            ("all", [key, value, body]) => (What::All, key, value, None, body),
            ("exists", [key, value, body]) => (What::Exists, key, value, None, body),
            ("existsOne" | "exists_one", [key, value, body]) => {
                (What::ExistsOne, key, value, None, body)
            }
            ("transformList", [key, value, body]) => (What::TransformList, key, value, None, body),
            ("transformList", [key, value, filter, body]) => {
                (What::TransformList, key, value, Some(filter), body)
            }
            ("transformMap", [key, value, body]) => (What::TransformMap, key, value, None, body),
            ("transformMap", [key, value, filter, body]) => {
                (What::TransformMap, key, value, Some(filter), body)
            }
            ("transformMapEntry", [key, value, body]) => {
                (What::TransformMapEntry, key, value, None, body)
            }
            ("transformMapEntry", [key, value, filter, body]) => {
                (What::TransformMapEntry, key, value, Some(filter), body)
            }
            ("sortBy", [item, body]) => (What::SortBy, item, item, None, body),
            ("optMap", [value, body]) => (What::OptMap, value, value, None, body),
            ("optFlatMap", [value, body]) => (What::OptFlatMap, value, value, None, body),
            _ => return None,
        };
        let (key, value) = (ident(key)?, ident(value)?);
        Some((|| {
            let names = [key.as_str(), value.as_str()];
            let filter = filter.map(|filter| self.within(&names, filter, depth));
            Ok(Expr::Each(Box::new(Each {
                what,
                range: self.read(target, depth)?,
                filter: filter.transpose()?,
                body: self.within(&names, body, depth)?,
                key,
                value,
            })))
        })())
    }
}

/// Names in the longest one with dots that is asked for.
const NAMES_OF_TYPES: usize = 4;

/// The text of names with dots between them; nothing of more than `most`, so that a long
/// chain of fields is not written again for each of them.
fn dotted(expr: &ast::Expr, most: usize) -> Option<String> {
    let most = most.checked_sub(1)?;
    match expr {
        ast::Expr::Ident(name) => Some(name.clone()),
        ast::Expr::Select(select) if !select.test => Some(format!(
            "{}.{}",
            dotted(&select.operand.expr, most)?,
            select.field
        )),
        _ => None,
    }
}

fn read_literal(literal: &LiteralValue) -> Literal {
    match literal {
        LiteralValue::Null => Literal::Null,
        LiteralValue::Boolean(value) => Literal::Bool(*value.inner()),
        LiteralValue::Int(value) => Literal::Int(*value.inner()),
        LiteralValue::UInt(value) => Literal::Uint(*value.inner()),
        LiteralValue::Double(value) => Literal::Double(*value.inner()),
        LiteralValue::String(text) => Literal::Text(text.inner().into()),
        LiteralValue::Bytes(bytes) => Literal::Bytes(bytes.inner().to_vec().into()),
    }
}
