//! Builds the expressions of a conditional write.

use std::collections::BTreeMap;

use serde_dynamo::AttributeValue;

use super::fields::number;

/// What a write changes, and its conditions, all of which must hold.
///
/// Attribute names never appear in an expression (some are reserved words), only placeholders such as
/// `#name`.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowExpression {
    /// The attribute name behind `#name`.
    pub(crate) names: BTreeMap<String, String>,
    /// The value behind `:name`.
    pub(crate) values: BTreeMap<String, AttributeValue>,
    set: Vec<String>,
    add: Vec<String>,
    projection: Vec<String>,
    remove: Vec<String>,
    conditions: Vec<String>,
}

impl RowExpression {
    /// A row that exists and that this build may write: its format is not newer than `format`.
    pub(crate) fn on_readable(format: u32) -> Self {
        let mut it = Self::default();
        let name = it.name("format");
        let newest = it.value("newest", number(format));
        it.conditions.push(format!("{name} <= {newest}"));
        it
    }

    /// Like [`RowExpression::on_readable`], or no row.
    pub(crate) fn on_readable_or_none(format: u32) -> Self {
        let mut it = Self::on_readable(format);
        let readable = it.conditions.join(" AND ");
        it.conditions = vec![format!("(attribute_not_exists(#format) OR {readable})")];
        it
    }

    /// A row of a format that is not newer, or no row. Its format may also be damaged.
    pub(crate) fn unless_newer(format: u32) -> Self {
        let mut it = Self::default();
        let name = it.name("format");
        let newest = it.value("newest", number(format));
        it.conditions.push(format!("NOT {name} > {newest}"));
        it
    }

    /// Sets these attributes, and removes those that are `None`.
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

    /// Sets those of these attributes that the row does not have.
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

    /// Adds to a number; a missing one counts as zero.
    pub(crate) fn add(mut self, name: &str, change: i32) -> Self {
        let name_in = self.name(name);
        let change = AttributeValue::N(change.to_string());
        let change = self.value(&format!("add_{name}"), change);
        self.add.push(format!("{name_in} {change}"));
        self
    }

    /// Reads only these attributes.
    pub(crate) fn only(mut self, names: &[&str]) -> Self {
        for name in names {
            let name = self.name(name);
            self.projection.push(name);
        }
        self
    }

    /// Requires that the row does not exist. `key` is one of its key attributes.
    pub(crate) fn on_none(key: &str) -> Self {
        Self::default().when(key, None)
    }

    /// Requires that the attribute has this value (`None`: does not exist).
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

    /// Requires that the row exists, whatever it contains. `key` is one of its key attributes.
    pub(crate) fn on_any(key: &str) -> Self {
        let mut it = Self::default();
        let key = it.name(key);
        it.conditions.push(format!("attribute_exists({key})"));
        it
    }

    /// Requires that the row does not exist, or that it has this attribute.
    pub(crate) fn when_none_or(mut self, name: &str) -> Self {
        let format = self.name("format");
        let name = self.name(name);
        let condition = format!("(attribute_not_exists({format}) OR attribute_exists({name}))");
        self.conditions.push(condition);
        self
    }

    /// Requires that the attribute does not have this value.
    pub(crate) fn unless(mut self, name: &str, value: AttributeValue) -> Self {
        let name_in = self.name(name);
        let value = self.value(&format!("not_{name}"), value);
        self.conditions.push(format!("{name_in} <> {value}"));
        self
    }

    /// Requires that the attribute exists and is below `value`.
    pub(crate) fn when_below(mut self, name: &str, value: AttributeValue) -> Self {
        let name_in = self.name(name);
        let value = self.value(&format!("limit_{name}"), value);
        self.conditions.push(format!("{name_in} < {value}"));
        self
    }

    /// Requires that the attribute exists and is not below `value`.
    pub(crate) fn when_at_least(mut self, name: &str, value: AttributeValue) -> Self {
        let name_in = self.name(name);
        let value = self.value(&format!("least_{name}"), value);
        self.conditions.push(format!("{name_in} >= {value}"));
        self
    }

    /// Requires that the attribute exists and begins with this text.
    pub(crate) fn when_begins(mut self, name: &str, prefix: &str) -> Self {
        let name_in = self.name(name);
        let prefix = AttributeValue::S(prefix.to_owned());
        let value = self.value(&format!("begins_{name}"), prefix);
        self.conditions
            .push(format!("begins_with({name_in}, {value})"));
        self
    }

    /// Requires that the attribute exists and is not above `value`.
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

    /// The projection expression; `None` reads everything.
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
