//! Expressions of the Common Expression Language, as admission has them: conditions of
//! webhooks and all of a policy of either kind. Those that change an object make objects
//! (`Object.spec{...}`, `JSONPatch{...}`), which [`Val::to_json`] turns into JSON.
//!
//! # Flow
//! [`Program::compile`] parses once, when a configuration is read. [`Program::evaluate`]
//! walks the tree over the values that [`Resolve`] gives, which borrow the objects of the request.
//!
//! # Guarantees
//! * What an evaluation takes is counted and bounded ([`Budget`]): steps, bytes and time.
//!   Work costs as many steps as it is long (texts, lists, comparisons, regular
//!   expressions), and bytes are counted before they are allocated.
//! * Nothing is evaluated deeper than [`MAX_DEPTH`] levels, variables of a policy within the
//!   expression that asks for them included; no value that is made has more than
//!   [`MAX_NESTED`]. So whatever recurses over either, dropping included, ends.
//! * What is not known here is an error when it is compiled, and never a value: the failure
//!   policy says what becomes of it.
//!
//! # Limits
//! Types are known when an expression is evaluated, not before.

mod address;
mod authorizer;
mod formats;
mod functions;
mod iterate;
mod json;
mod lists;
mod message;
mod pattern;
mod quantity;
mod semver;
mod strings;
mod syntax;
mod time;
mod url;
mod value;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::authorizer::{Answer, Question, ResourceCheck, Who};
pub use self::json::{Form, Unwritable};
pub use self::quantity::Quantity;
pub use self::value::{JSON_PATCH, OBJECT, Object, Text, Unusable, Val};
use syntax::Expr;

/// Levels of an expression, and of what is evaluated.
pub const MAX_DEPTH: usize = 200;
/// Levels that a variable takes beside its expression.
const VARIABLE: usize = 2;
/// Levels of lists, maps and optionals that an expression makes in one another. What is in
/// an object of the request counts as one: the stack of whoever drops a value does not see it.
pub const MAX_NESTED: usize = 90;
/// What the conditions of one webhook may take, together.
pub const CONDITIONS: u64 = 2_500_000;
/// What one expression may take.
pub const EXPRESSION: u64 = 1_000_000;
/// What one policy may take.
pub const POLICY: u64 = 10_000_000;
/// Bytes that all that is evaluated with one budget may allocate for values. Those of values
/// that are gone count as well.
pub const MEMORY: u64 = 16 * 1024 * 1024;
/// Bytes that the parser takes for the longest expression: a list of figures takes most.
pub const READING: usize = 184 * 1024 * 1024;
/// How long all of it may last, whatever the steps say.
pub const TIME: Duration = Duration::from_millis(500);
/// Steps between two looks at the clock.
const STEPS: u64 = 4_096;
/// Bytes that a text takes beside its characters.
const TEXT: usize = 32;
/// What an expression is told that took too many steps, or too many bytes.
const COST_EXCEEDED: &str = "operation cancelled: actual cost limit exceeded";
const MEMORY_EXCEEDED: &str = "operation cancelled: memory limit exceeded";

/// Gives variables their values.
pub trait Resolve<'a> {
    /// The value of a name; nothing for one that is not there.
    ///
    /// # Errors
    /// What went wrong with the value of a variable that is an expression itself.
    fn resolve(&self, name: &str) -> Option<Result<Val<'a>, Unusable>>;

    /// The value of `variables.NAME`; what it takes is on the budget of who asks for it.
    ///
    /// # Errors
    /// The same.
    fn variable(&self, _name: &str, _budget: &Budget) -> Option<Result<Val<'a>, Unusable>> {
        None
    }

    /// What the authorizer says.
    ///
    /// # Errors
    /// [`Unusable::Unasked`] if it was not asked yet; why it cannot be.
    fn ask(&self, _question: Question) -> Result<Arc<Answer>, Unusable> {
        Err(value::overload())
    }
}

/// Names and their values.
#[derive(Debug)]
pub struct Named<'n, 'a>(pub &'n [(&'n str, Val<'a>)]);

impl<'a> Resolve<'a> for Named<'_, 'a> {
    fn resolve(&self, name: &str) -> Option<Result<Val<'a>, Unusable>> {
        let found = self.0.iter().find(|(known, _)| *known == name)?;
        Some(Ok(found.1.clone()))
    }
}

/// What evaluations may still take.
#[derive(Debug)]
pub struct Budget {
    left: RefCell<Left>,
    /// Levels around the expression that is evaluated now: a variable is evaluated within
    /// the expression that asks for it, on the same stack.
    depth: Cell<usize>,
    /// Nothing is evaluated after it.
    until: Instant,
    /// Regular expressions that were compiled already.
    patterns: RefCell<HashMap<String, Pattern>>,
}

#[derive(Clone, Copy, Debug)]
struct Left {
    /// Steps of all expressions.
    all: u64,
    one: One,
    bytes: u64,
    /// Steps since the last look at the clock.
    unlooked: u64,
}

/// What is left for one expression.
#[derive(Clone, Copy, Debug)]
struct One {
    steps: u64,
    /// What it is told when it has none.
    over: &'static str,
}

const WHOLE: One = One {
    steps: EXPRESSION,
    over: COST_EXCEEDED,
};

impl Budget {
    /// So many steps for all that is evaluated with it, within [`MEMORY`] and [`TIME`].
    pub fn new(all: u64) -> Self {
        Self {
            left: RefCell::new(Left {
                all,
                one: WHOLE,
                bytes: MEMORY,
                unlooked: 0,
            }),
            depth: Cell::new(0),
            until: Instant::now() + TIME,
            patterns: RefCell::default(),
        }
    }

    /// Ends no later than this.
    pub fn ending(mut self, until: Instant) -> Self {
        self.until = self.until.min(until);
        self
    }

    /// Whether there is time left.
    ///
    /// # Errors
    /// When nothing more may be evaluated.
    pub fn in_time(&self) -> Result<(), Unusable> {
        match Instant::now() < self.until {
            true => Ok(()),
            false => Err(Unusable::OutOfBudget),
        }
    }

    /// So many steps again; bytes and time go on where they are.
    pub fn again(&self, all: u64) {
        self.left.borrow_mut().all = all;
    }

    /// The next expression has its own bound again.
    fn begin(&self) -> One {
        let mut left = self.left.borrow_mut();
        std::mem::replace(&mut left.one, WHOLE)
    }

    /// What was left of the bound of the expression around it.
    fn resume(&self, one: One) {
        self.left.borrow_mut().one = one;
    }

    /// Before work that takes so many steps.
    fn take(&self, cost: u64) -> Result<(), Unusable> {
        let mut left = self.left.borrow_mut();
        left.unlooked = left.unlooked.saturating_add(cost);
        if left.unlooked >= STEPS {
            left.unlooked = 0;
            if Instant::now() >= self.until {
                left.all = 0;
            }
        }
        let one = left.one.steps.checked_sub(cost);
        match (left.all.checked_sub(cost), one) {
            (Some(all), Some(one)) => {
                left.all = all;
                left.one.steps = one;
                Ok(())
            }
            (None, _) => Err(Unusable::OutOfBudget),
            (_, None) => {
                left.one.steps = 0;
                Err(Unusable::Error(left.one.over.to_owned()))
            }
        }
    }

    /// Before so many bytes are allocated.
    fn allocate(&self, bytes: usize) -> Result<(), Unusable> {
        let mut left = self.left.borrow_mut();
        match left.bytes.checked_sub(bytes as u64) {
            Some(rest) => {
                left.bytes = rest;
                Ok(())
            }
            None => {
                left.one = One {
                    steps: 0,
                    over: MEMORY_EXCEEDED,
                };
                Err(Unusable::Error(MEMORY_EXCEEDED.to_owned()))
            }
        }
    }

    /// Before so many bytes of a text are looked at.
    fn look(&self, length: usize) -> Result<(), Unusable> {
        self.take(length as u64 / 10)
    }

    /// Before a text, or bytes, of this length is made.
    pub fn copy(&self, length: usize) -> Result<(), Unusable> {
        self.look(length)?;
        self.allocate(length.saturating_add(TEXT))
    }

    /// Before a list has so many items more.
    fn items(&self, count: usize) -> Result<(), Unusable> {
        self.take(count as u64)?;
        self.allocate(count.saturating_mul(size_of::<Val<'static>>()))
    }
}

/// A regular expression, and the bytes that it is compiled to at most.
#[derive(Clone, Debug)]
struct Pattern {
    regex: regex::Regex,
    size: usize,
}

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Program {
    source: String,
    parsed: Result<Expr, String>,
}

impl Program {
    /// Parses an expression; one that cannot be is an error each time it is evaluated.
    /// `known` are the names that it may use.
    pub fn compile(source: &str, known: &[&str]) -> Self {
        Self {
            source: source.to_owned(),
            parsed: syntax::parse(source, known),
        }
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its value, without what an expression adds to an error.
    ///
    /// # Errors
    /// What is wrong with the expression, or with its values; that it takes too much.
    pub fn value<'a>(
        &self,
        variables: &dyn Resolve<'a>,
        budget: &Budget,
    ) -> Result<Val<'a>, Unusable> {
        let parsed = self.parsed.as_ref();
        let parsed = parsed.map_err(|why| Unusable::Uncompiled(why.clone()))?;
        let around = budget.begin();
        let run = Run { variables, budget };
        let value = run.eval(parsed, &Scope::End, budget.depth.get());
        budget.resume(around);
        value
    }

    /// Its value.
    ///
    /// # Errors
    /// As [`Program::value`], in the words of Kubernetes.
    pub fn evaluate<'a>(
        &self,
        variables: &dyn Resolve<'a>,
        budget: &Budget,
    ) -> Result<Val<'a>, Unusable> {
        self.value(variables, budget).map_err(|error| match error {
            Unusable::Error(why) => Unusable::Error(format!(
                "expression '{}' resulted in error: {why}",
                self.source
            )),
            other => other,
        })
    }
}

/// One evaluation.
struct Run<'r, 'a> {
    variables: &'r dyn Resolve<'a>,
    budget: &'r Budget,
}

/// Names of comprehensions, the innermost first.
enum Scope<'s, 'a> {
    End,
    Name(&'s str, RefCell<Val<'a>>, &'s Scope<'s, 'a>),
}

impl<'s, 'a> Scope<'s, 'a> {
    fn with(&'s self, name: &'s str, value: Val<'a>) -> Scope<'s, 'a> {
        Scope::Name(name, RefCell::new(value), self)
    }

    fn find(&self, name: &str) -> Option<&RefCell<Val<'a>>> {
        let mut scope = self;
        while let Scope::Name(known, value, rest) = scope {
            if *known == name {
                return Some(value);
            }
            scope = rest;
        }
        None
    }
}

type Evaluated<'a> = Result<Val<'a>, Unusable>;

fn error<'a>(why: impl Into<String>) -> Evaluated<'a> {
    let why = apiservice::told::cut(why.into(), apiservice::told::MAX_TEXT);
    Err(Unusable::Error(why))
}

impl<'a> Run<'_, 'a> {
    fn eval(&self, expr: &Expr, scope: &Scope<'_, 'a>, depth: usize) -> Evaluated<'a> {
        self.budget.take(1)?;
        if depth > MAX_DEPTH {
            return error("the expression is nested too deep");
        }
        let below = depth + 1;
        match expr {
            Expr::Literal(literal) => Ok(literal.value()),
            Expr::Ident(name) => self.name(name, scope),
            Expr::Select { of, field, dotted } => {
                // A name with dots may be that of a type, which no object has.
                if let Some(of_type) = dotted.as_deref().and_then(value::type_of_name) {
                    return Ok(of_type);
                }
                if let Some(value) = self.own_variable(of, field, below) {
                    return value;
                }
                self.budget.look(field.len())?;
                self.eval(of, scope, below)?.field(field)
            }
            Expr::Has { of, field } => {
                if let Some(value) = self.own_variable(of, field, below) {
                    return value.map(|_| Val::Bool(true));
                }
                self.budget.look(field.len())?;
                let value = self.eval(of, scope, below)?;
                value.has(field).map(Val::Bool)
            }
            Expr::List(items) => {
                self.budget.items(items.len())?;
                let mut list = Vec::with_capacity(items.len());
                for (item, optional) in items {
                    let value = self.eval(item, scope, below)?;
                    match (optional, value) {
                        (false, value) => list.push(value),
                        (true, value) => list.extend(value.optional()?),
                    }
                }
                Val::list(list)
            }
            Expr::Map(entries) => {
                self.budget.items(2 * entries.len())?;
                let mut map = Vec::with_capacity(entries.len());
                for (key, value, optional) in entries {
                    let key = self.eval(key, scope, below)?;
                    let value = self.eval(value, scope, below)?;
                    let value = match optional {
                        false => Some(value),
                        true => value.optional()?,
                    };
                    map.extend(value.map(|value| (key, value)));
                }
                Val::map(map, self.budget)
            }
            Expr::Object { name, fields } => {
                self.budget.items(2 * fields.len())?;
                let mut made = Vec::with_capacity(fields.len());
                for (field, value, optional) in fields {
                    let value = self.eval(value, scope, below)?;
                    let value = match optional {
                        false => Some(value),
                        true => value.optional()?,
                    };
                    made.extend(value.map(|value| (field.clone(), value)));
                }
                match message::fields(name) {
                    Some(_) => message::make(name, made, self.budget),
                    None => Val::object(name.clone(), made),
                }
            }
            Expr::Fold(fold) => self.fold(fold, scope, below),
            Expr::Each(each) => self.each(each, scope, below),
            Expr::Let { name, value, body } => {
                let value = self.eval(value, scope, below)?;
                self.eval(body, &scope.with(name, value), below)
            }
            Expr::Call { name, target, args } => {
                self.call(name, target.as_deref(), args, scope, below)
            }
        }
    }

    fn name(&self, name: &str, scope: &Scope<'_, 'a>) -> Evaluated<'a> {
        if let Some(value) = scope.find(name) {
            return match &*value.borrow() {
                Val::Failed(why) => error(&**why),
                value => Ok(value.clone()),
            };
        }
        if let Some(value) = self.variables.resolve(name) {
            return value;
        }
        value::type_of_name(name).map_or_else(
            || {
                error(format!(
                    "undeclared reference to '{name}' (in container '')"
                ))
            },
            Ok,
        )
    }

    /// `variables.NAME`.
    fn own_variable(&self, of: &Expr, field: &str, depth: usize) -> Option<Evaluated<'a>> {
        match of {
            Expr::Ident(name) if name == "variables" => {
                let around = self.budget.depth.replace(depth + VARIABLE);
                let value = self.variables.variable(field, self.budget);
                self.budget.depth.set(around);
                Some(value.unwrap_or_else(|| error(format!("undefined field '{field}'"))))
            }
            _ => None,
        }
    }

    fn call(
        &self,
        name: &str,
        target: Option<&Expr>,
        args: &[Expr],
        scope: &Scope<'_, 'a>,
        depth: usize,
    ) -> Evaluated<'a> {
        let eval = |expr: &Expr| self.eval(expr, scope, depth);
        match (name, args) {
            ("_&&_", [left, right]) => self.logical(false, left, right, scope, depth),
            ("_||_", [left, right]) => self.logical(true, left, right, scope, depth),
            ("_?_:_", [condition, yes, no]) => match eval(condition)? {
                Val::Bool(true) => eval(yes),
                Val::Bool(false) => eval(no),
                _ => value::no_overload(),
            },
            // Errors are neither.
            ("@not_strictly_false", [of]) => Ok(match eval(of) {
                Ok(Val::Bool(false)) => Val::Bool(false),
                Err(why) if why.ends_all() => return Err(why),
                _ => Val::Bool(true),
            }),
            ("_+_", [Expr::Ident(list), Expr::List(more)]) if scope.find(list).is_some() => {
                self.append(list, more, scope, depth)
            }
            ("orValue", [other]) => match eval(target.ok_or_else(value::overload)?)? {
                Val::Optional(None) => eval(other),
                Val::Optional(Some(value)) => Ok(value.as_ref().clone()),
                _ => value::no_overload(),
            },
            ("or", [other]) => match eval(target.ok_or_else(value::overload)?)? {
                Val::Optional(None) => eval(other),
                value @ Val::Optional(Some(_)) => Ok(value),
                _ => value::no_overload(),
            },
            _ => {
                let target = target.map(eval).transpose()?;
                let mut values = Vec::with_capacity(args.len() + 1);
                values.extend(target);
                for arg in args {
                    values.push(eval(arg)?);
                }
                functions::call(self, name, values)
            }
        }
    }

    /// `&&` and `||`: what one side decides is not undone by an error of the other.
    fn logical(
        &self,
        decisive: bool,
        left: &Expr,
        right: &Expr,
        scope: &Scope<'_, 'a>,
        depth: usize,
    ) -> Evaluated<'a> {
        let bool_of = |value: Evaluated<'a>| match value? {
            Val::Bool(value) => Ok(value),
            _ => Err(value::overload()),
        };
        let left = bool_of(self.eval(left, scope, depth));
        if let Err(why) = &left
            && why.ends_all()
        {
            return left.map(Val::Bool);
        }
        if matches!(left, Ok(value) if value == decisive) {
            return Ok(Val::Bool(decisive));
        }
        let right = bool_of(self.eval(right, scope, depth));
        match (left, right) {
            (_, Err(why)) if why.ends_all() => Err(why),
            (_, Ok(value)) if value == decisive => Ok(Val::Bool(decisive)),
            (Err(why), _) | (_, Err(why)) => Err(why),
            (Ok(_), Ok(value)) => Ok(Val::Bool(value)),
        }
    }

    /// What `map` and `filter` collect in: the list is taken, made longer and given back, so
    /// that collecting does not copy it each time.
    fn append(
        &self,
        name: &str,
        more: &[(Expr, bool)],
        scope: &Scope<'_, 'a>,
        depth: usize,
    ) -> Evaluated<'a> {
        // Twice: a list that grows has room for as many again.
        self.budget.items(2 * more.len())?;
        let mut added = Vec::with_capacity(more.len());
        for (item, _) in more {
            added.push(self.eval(item, scope, depth)?);
        }
        let Some(cell) = scope.find(name) else {
            return value::no_overload();
        };
        if !name.starts_with('@') {
            let list = cell.borrow().clone();
            return functions::call(self, "_+_", vec![list, Val::list(added)?]);
        }
        match std::mem::replace(&mut *cell.borrow_mut(), Val::Null) {
            Val::List(mut list) => {
                std::rc::Rc::make_mut(&mut list).extend(added)?;
                Ok(Val::List(list))
            }
            Val::Failed(why) => error(&*why),
            _ => value::no_overload(),
        }
    }
}

#[cfg(test)]
mod tests;
