//! The terms of a selector.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Requirement {
    pub(super) key: String,
    pub(super) operator: Operator,
    pub(super) values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Exists,
    DoesNotExist,
    In,
    NotIn,
    GreaterThan,
    LessThan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Name,
    Namespace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldTerm {
    pub(super) field: Field,
    pub(super) equal: bool,
    pub(super) value: String,
}

impl Requirement {
    /// Values are sorted.
    fn has(&self, value: &str) -> bool {
        let value = self.values.binary_search_by(|it| it.as_str().cmp(value));
        value.is_ok()
    }

    /// Whether an object whose label this is, or that has none, is selected.
    pub(super) fn matches(&self, value: Option<&str>) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        match self.operator {
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::In => value.is_some_and(|value| self.has(value)),
            Operator::NotIn => value.is_none_or(|value| !self.has(value)),
            Operator::GreaterThan | Operator::LessThan => {
                let bound = self.values.first().and_then(|text| number(text));
                match (value.and_then(number), bound) {
                    (Some(value), Some(bound)) if self.operator == Operator::GreaterThan => {
                        value > bound
                    }
                    (Some(value), Some(bound)) => value < bound,
                    _ => false,
                }
            }
        }
    }
}
