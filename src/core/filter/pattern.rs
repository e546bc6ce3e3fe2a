//! A compiled pattern.

use bigdecimal::BigDecimal;

/// All of these must match, in the pattern's order.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) parts: Vec<Clause>,
    /// As it was written.
    pub(super) text: String,
}

#[derive(Debug, Clone)]
pub(super) enum Clause {
    Field(String, Node),
    /// One of these must match: `$or`.
    AnyOf(Vec<Object>),
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Object(Object),
    Leaf(Leaf),
}

/// One of these must match the value.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) tests: Vec<Test>,
    /// As it was written.
    pub(super) text: String,
}

#[derive(Debug, Clone)]
pub(super) enum Test {
    Is(Literal),
    Null,
    Prefix(String),
    Suffix(String),
    /// Letters in lower case.
    SameLetters(String),
    AnythingBut(Vec<Literal>),
    Within(Vec<Bound>),
    Exists(bool),
}

#[derive(Debug, Clone)]
pub(super) enum Literal {
    Text(String),
    Number(BigDecimal),
    Truth(bool),
}

#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) sign: Sign,
    pub(super) limit: BigDecimal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Is,
    Below,
    AtMost,
    Above,
    AtLeast,
}
