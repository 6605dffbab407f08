//! The grammar of label selectors (R3.9), with Kubernetes' error texts.

use apiservice::forms;

use super::terms::{Operator, Requirement};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    End,
    Open,
    Close,
    Comma,
    Not,
    /// `=` `==` `!=` `>` `<`
    Compare(&'static str),
    /// Identifier, also `in` and `notin`; which it is depends on the position.
    Word(String),
    Bad(String),
}

impl Token {
    fn literal(&self) -> &str {
        match self {
            Self::End => "",
            Self::Open => "(",
            Self::Close => ")",
            Self::Comma => ",",
            Self::Not => "!",
            Self::Compare(text) => text,
            Self::Word(text) | Self::Bad(text) => text,
        }
    }
}

const SPECIAL: &str = "=!(),><";
/// What stands between words and ends them. One list for both: a word that ends at what is not
/// passed over is empty, again and again.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

fn lex(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(BLANKS);
        let Some(first) = rest.chars().next() else {
            tokens.push(Token::End);
            return tokens;
        };
        if !SPECIAL.contains(first) {
            let end = rest
                .find(|c: char| SPECIAL.contains(c) || BLANKS.contains(&c))
                .unwrap_or(rest.len());
            debug_assert!(end > 0, "what begins a word ends none");
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
            continue;
        }
        let (token, length) = special(rest);
        tokens.push(token);
        rest = &rest[length..];
    }
}

fn special(rest: &str) -> (Token, usize) {
    for two in ["==", "!="] {
        if rest.starts_with(two) {
            return (Token::Compare(two), 2);
        }
    }
    match rest.as_bytes().first() {
        Some(b'(') => (Token::Open, 1),
        Some(b')') => (Token::Close, 1),
        Some(b',') => (Token::Comma, 1),
        Some(b'!') => (Token::Not, 1),
        Some(b'=') => (Token::Compare("="), 1),
        Some(b'>') => (Token::Compare(">"), 1),
        Some(b'<') => (Token::Compare("<"), 1),
        _ => {
            let end = rest.chars().next().map_or(0, char::len_utf8);
            let found = &rest[..end];
            (
                Token::Bad(format!("error expected: keyword found '{found}'")),
                end.max(1),
            )
        }
    }
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

impl Parser {
    fn next(&mut self) -> Token {
        self.tokens.next().unwrap_or(Token::End)
    }

    fn peek(&mut self) -> Token {
        self.tokens.peek().cloned().unwrap_or(Token::End)
    }
}

/// The requirements of a selector; all must hold.
pub fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    let mut parser = Parser {
        tokens: lex(text).into_iter().peekable(),
    };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            Token::Word(_) | Token::Not => {
                let requirement = requirement(&mut parser)
                    .map_err(|error| format!("unable to parse requirement: {error}"))?;
                requirements.push(requirement);
                match parser.next() {
                    Token::End => return Ok(requirements),
                    Token::Comma => {
                        let after = parser.peek();
                        if !matches!(after, Token::Word(_) | Token::Not) {
                            return Err(format!(
                                "found '{}', expected: identifier after ','",
                                after.literal()
                            ));
                        }
                    }
                    other => {
                        return Err(format!(
                            "found '{}', expected: ',' or 'end of string'",
                            other.literal()
                        ));
                    }
                }
            }
            Token::End => return Ok(requirements),
            other => {
                return Err(format!(
                    "found '{}', expected: !, identifier, or 'end of string'",
                    other.literal()
                ));
            }
        }
    }
}

fn requirement(parser: &mut Parser) -> Result<Requirement, String> {
    let mut token = parser.next();
    let negated = token == Token::Not;
    if negated {
        token = parser.next();
    }
    let Token::Word(key) = token else {
        return Err(format!("found '{}', expected: identifier", token.literal()));
    };
    check_key(&key)?;
    if negated || matches!(parser.peek(), Token::End | Token::Comma) {
        let operator = if negated {
            Operator::DoesNotExist
        } else {
            Operator::Exists
        };
        return Ok(Requirement {
            key,
            operator,
            values: Vec::new(),
        });
    }
    let token = parser.next();
    let (operator, mut values) = match &token {
        Token::Word(word) if word == "in" => (Operator::In, value_set(parser)?),
        Token::Word(word) if word == "notin" => (Operator::NotIn, value_set(parser)?),
        Token::Compare("=" | "==") => (Operator::In, exact_value(parser)?),
        Token::Compare("!=") => (Operator::NotIn, exact_value(parser)?),
        Token::Compare(">") => (Operator::GreaterThan, exact_value(parser)?),
        Token::Compare("<") => (Operator::LessThan, exact_value(parser)?),
        other => {
            return Err(format!(
                "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                other.literal()
            ));
        }
    };
    values.sort();
    values.dedup();
    check_values(operator, &key, &values)?;
    Ok(Requirement {
        key,
        operator,
        values,
    })
}

fn exact_value(parser: &mut Parser) -> Result<Vec<String>, String> {
    match parser.peek() {
        Token::End | Token::Comma => Ok(vec![String::new()]),
        _ => match parser.next() {
            Token::Word(word) => Ok(vec![word]),
            other => Err(format!("found '{}', expected: identifier", other.literal())),
        },
    }
}

fn value_set(parser: &mut Parser) -> Result<Vec<String>, String> {
    let token = parser.next();
    if token != Token::Open {
        return Err(format!("found '{}' expected: '('", token.literal()));
    }
    // A set reads as values with commas between them; a value may be empty.
    let mut values = Vec::new();
    loop {
        match parser.next() {
            Token::Word(word) => {
                values.push(word);
                match parser.next() {
                    Token::Comma => {
                        if parser.peek() == Token::Close {
                            values.push(String::new());
                        }
                    }
                    Token::Close => return Ok(values),
                    other => {
                        return Err(format!("found '{}', expected: ',' or ')'", other.literal()));
                    }
                }
            }
            Token::Comma => {
                values.push(String::new());
                if parser.peek() == Token::Close {
                    values.push(String::new());
                }
            }
            Token::Close => {
                if values.is_empty() {
                    values.push(String::new());
                }
                return Ok(values);
            }
            other => {
                return Err(format!(
                    "found '{}', expected: ',', ')' or identifier",
                    other.literal()
                ));
            }
        }
    }
}

fn check_key(key: &str) -> Result<(), String> {
    let complaints = forms::qualified_name_complaints(key);
    if complaints.is_empty() {
        return Ok(());
    }
    let complaints = complaints.join("; ");
    Err(format!("<nil>: Invalid value: {key:?}: {complaints}"))
}

fn check_values(operator: Operator, key: &str, values: &[String]) -> Result<(), String> {
    for (position, value) in values.iter().enumerate() {
        let numeric = matches!(operator, Operator::GreaterThan | Operator::LessThan);
        if numeric && value.parse::<i64>().is_err() {
            return Err(format!(
                "values[{position}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            ));
        }
        let complaints = forms::label_value_complaints(value);
        if !complaints.is_empty() {
            let complaints = complaints.join("; ");
            return Err(format!(
                "values[{position}][{key}]: Invalid value: {value:?}: {complaints}"
            ));
        }
    }
    Ok(())
}
