//! Building the expressions of a conditional write.

use std::collections::BTreeMap;

use serde_dynamo::AttributeValue;

use super::fields::number;

/// What a write changes, and under which condition: all of the conditions must hold.
///
/// Attribute names are never spelled inside an expression (some are reserved words), only as
/// `#name`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expression {
    /// What `#name` stands for.
    pub(crate) names: BTreeMap<String, String>,
    /// What `:name` stands for.
    pub(crate) values: BTreeMap<String, AttributeValue>,
    set: Vec<String>,
    add: Vec<String>,
    projection: Vec<String>,
    remove: Vec<String>,
    conditions: Vec<String>,
}

impl Expression {
    /// A row that is there and that this build may write to: none of a format newer than
    /// `format`.
    pub(crate) fn on_readable(format: u32) -> Self {
        let mut it = Self::default();
        let name = it.name("format");
        let newest = it.value("newest", number(format));
        it.conditions.push(format!("{name} <= {newest}"));
        it
    }

    /// As [`Expression::on_readable`], or a row that is not there.
    pub(crate) fn on_readable_or_none(format: u32) -> Self {
        let mut it = Self::on_readable(format);
        let readable = it.conditions.join(" AND ");
        it.conditions = vec![format!("(attribute_not_exists(#format) OR {readable})")];
        it
    }

    /// A row of no newer format than this one, or none: also one whose format is damaged.
    pub(crate) fn unless_newer(format: u32) -> Self {
        let mut it = Self::default();
        let name = it.name("format");
        let newest = it.value("newest", number(format));
        it.conditions.push(format!("NOT {name} > {newest}"));
        it
    }

    /// Writes these attributes, and removes those that are `None`.
    pub(crate) fn write<N: AsRef<str>>(
        mut self,
        fields: impl IntoIterator<Item = (N, Option<AttributeValue>)>,
    ) -> Self {
        for (name, value) in fields {
            let name = name.as_ref();
            let name_in = self.name(name);
            match value {
                Some(value) => {
                    let value = self.value(name, value);
                    self.set.push(format!("{name_in} = {value}"));
                }
                None => self.remove.push(name_in),
            }
        }
        self
    }

    /// Writes these attributes as far as the row does not have them.
    pub(crate) fn fill_in<N: AsRef<str>>(
        mut self,
        fields: impl IntoIterator<Item = (N, Option<AttributeValue>)>,
    ) -> Self {
        for (name, value) in fields {
            let name = name.as_ref();
            if let Some(value) = value {
                let name_in = self.name(name);
                let value = self.value(name, value);
                self.set
                    .push(format!("{name_in} = if_not_exists({name_in}, {value})"));
            }
        }
        self
    }

    /// Adds to a number; one that is not there counts as nothing.
    pub(crate) fn add(mut self, name: &str, change: i32) -> Self {
        let name_in = self.name(name);
        let change = AttributeValue::N(change.to_string());
        let change = self.value(&format!("add_{name}"), change);
        self.add.push(format!("{name_in} {change}"));
        self
    }

    /// Only these attributes are read.
    pub(crate) fn only(mut self, names: &[&str]) -> Self {
        for name in names {
            let name = self.name(name);
            self.projection.push(name);
        }
        self
    }

    /// The row must not be there. `key` is one of its key attributes.
    pub(crate) fn on_none(key: &str) -> Self {
        Self::default().when(key, None)
    }

    /// The attribute must be so (`None`: must not be there).
    pub(crate) fn when(mut self, name: &str, value: Option<AttributeValue>) -> Self {
        let name_in = self.name(name);
        let condition = match value {
            Some(value) => {
                let value = self.value(&format!("seen_{name}"), value);
                format!("{name_in} = {value}")
            }
            None => format!("attribute_not_exists({name_in})"),
        };
        self.conditions.push(condition);
        self
    }

    /// The row must be there, whatever else is in it. `key` is one of its key attributes.
    pub(crate) fn on_any(key: &str) -> Self {
        let mut it = Self::default();
        let key = it.name(key);
        it.conditions.push(format!("attribute_exists({key})"));
        it
    }

    /// The row must not be there, or it must have this attribute.
    pub(crate) fn when_none_or(mut self, name: &str) -> Self {
        let format = self.name("format");
        let name = self.name(name);
        let condition = format!("(attribute_not_exists({format}) OR attribute_exists({name}))");
        self.conditions.push(condition);
        self
    }

    /// The attribute must not be so.
    pub(crate) fn unless(mut self, name: &str, value: AttributeValue) -> Self {
        let name_in = self.name(name);
        let value = self.value(&format!("not_{name}"), value);
        self.conditions.push(format!("{name_in} <> {value}"));
        self
    }

    /// The attribute must be there and below `value`.
    pub(crate) fn when_below(mut self, name: &str, value: AttributeValue) -> Self {
        let name_in = self.name(name);
        let value = self.value(&format!("limit_{name}"), value);
        self.conditions.push(format!("{name_in} < {value}"));
        self
    }

    /// The attribute must be there and not below `value`.
    pub(crate) fn when_at_least(mut self, name: &str, value: AttributeValue) -> Self {
        let name_in = self.name(name);
        let value = self.value(&format!("least_{name}"), value);
        self.conditions.push(format!("{name_in} >= {value}"));
        self
    }

    /// The attribute must be there and not above `value`.
    pub(crate) fn when_at_most(mut self, name: &str, value: AttributeValue) -> Self {
        let name_in = self.name(name);
        let value = self.value(&format!("most_{name}"), value);
        self.conditions.push(format!("{name_in} <= {value}"));
        self
    }

    /// The update expression; `None` if nothing is changed.
    pub(crate) fn update(&self) -> Option<String> {
        let mut parts = Vec::new();
        if !self.set.is_empty() {
            parts.push(format!("SET {}", self.set.join(", ")));
        }
        if !self.remove.is_empty() {
            parts.push(format!("REMOVE {}", self.remove.join(", ")));
        }
        if !self.add.is_empty() {
            parts.push(format!("ADD {}", self.add.join(", ")));
        }
        (!parts.is_empty()).then(|| parts.join(" "))
    }

    /// The projection expression; `None`: everything is read.
    pub(crate) fn projection(&self) -> Option<String> {
        (!self.projection.is_empty()).then(|| self.projection.join(", "))
    }

    /// The condition expression.
    pub(crate) fn condition(&self) -> Option<String> {
        (!self.conditions.is_empty()).then(|| self.conditions.join(" AND "))
    }

    fn name(&mut self, name: &str) -> String {
        let spelled = format!("#{name}");
        self.names.insert(spelled.clone(), name.to_owned());
        spelled
    }

    fn value(&mut self, name: &str, value: AttributeValue) -> String {
        let spelled = format!(":{name}");
        self.values.insert(spelled.clone(), value);
        spelled
    }
}
