//! Filters: which changes a handler gets, in the syntax of AWS Lambda's event filter patterns.
//!
//! A pattern for a Lambda event source mapping works here unchanged. It is JSON in the shape of the
//! event, with a list of allowed values at each leaf:
//!
//! ```
//! use aftercommit::filter::Filter;
//!
//! let paid = Filter::parse(
//!     r#"{"eventName": ["INSERT"], "dynamodb": {"NewImage": {
//!         "status": {"S": ["PAID", {"prefix": "PRE"}]},
//!         "total": {"N": [{"numeric": [">=", 100]}]}
//!     }}}"#,
//! );
//! assert!(paid.is_ok());
//! ```
//!
//! | Operator | Matches if |
//! |---|---|
//! | `"a"`, `5`, `true`, `null`, `""` | the value equals this |
//! | `["a", "b"]` | one of the list matches |
//! | several fields | all of them match; each must exist |
//! | `"$or": [{…}, {…}]` | one of the objects matches |
//! | `{"anything-but": ["a"]}` | the value exists and equals none of these |
//! | `{"prefix": "a"}`, `{"suffix": "a"}` | the text begins, or ends, with this |
//! | `{"equals-ignore-case": "a"}` | the text equals this, ignoring case |
//! | `{"numeric": [">", 1, "<=", 5]}` | the number is in this range |
//! | `{"exists": true}` | the field has a plain value (not an object); `false`: it has none |
//!
//! Sources: [filter syntax](https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html#filtering-syntax),
//! [filtering DynamoDB records](https://docs.aws.amazon.com/lambda/latest/dg/with-ddb-filtering.html).
//!
//! # Numbers
//!
//! DynamoDB writes a number as text, `{"N": "300"}`. Text in a pattern is compared with it letter by
//! letter, as in Lambda: `"300"` is not `"300.0"`. A *number* in a pattern (bare, in `numeric` or in
//! `anything-but`) is compared by value, to the last digit: `300` equals `300.0`. In Lambda a number
//! never equals an `N`, so such a pattern lets nothing through (or everything, in `anything-but`); here
//! it does what it says. [`Filter::remarks`] points out such a pattern.
//!
//! # Lists
//!
//! A test of a list or a set matches if one element does. An object pattern matches a list if one
//! element has everything that it requires; a field that it requires to be absent must be absent from
//! all elements.
//!
//! # What AWS leaves open
//!
//! AWS's own example names `dynamodb` twice in one object. Objects with the same name are merged here,
//! so that both conditions apply, as that example intends. Lists with the same name are an error.
//! Lambda takes up to 4,096 characters; a longer pattern works here, with a remark.

mod compiler;
mod decimal;
mod evaluate;
mod home;
mod json;
mod leaf;
mod pattern;
mod shape;
mod subject;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use compiler::Compiler;
use evaluate::Fit;
pub use home::{BadHomeRegion, HomeRegion};
use pattern::Object;
use subject::RecordView;
pub use subject::Subject;

use crate::core::record::Record;

/// The longest pattern that Lambda accepts, in characters.
///
/// Source: [FilterCriteria](https://docs.aws.amazon.com/lambda/latest/api/API_Filter.html).
const LAMBDA_LENGTH: usize = 4096;

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Filter {
    pattern: Object,
    remarks: Vec<Remark>,
}

impl Filter {
    /// Parses a pattern. Never panics, whatever the text.
    ///
    /// # Errors
    ///
    /// A [`PatternError`] that says where the error is, what is wrong, and what is allowed there.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let read = json::read(text).and_then(|value| Compiler::compile(&value));
        let (pattern, mut remarks) = read.map_err(|mistake| mistake.in_text(text))?;
        let length = text.chars().count();
        if length > LAMBDA_LENGTH {
            remarks.push(Remark::LongerThanLambdaTakes { length });
        }
        Ok(Self { pattern, remarks })
    }

    /// Whether the record matches.
    pub fn matches<'a>(&self, subject: impl Into<Subject<'a>>) -> bool {
        evaluate::object(&self.pattern, RecordView::Event(subject.into())) != Fit::No
    }

    /// The first reason, in the pattern's order, why the record does not match; `None` if it matches.
    pub fn mismatch<'a>(&self, subject: impl Into<Subject<'a>>) -> Option<Mismatch> {
        let event = RecordView::Event(subject.into());
        evaluate::explain(&self.pattern, event, &mut Vec::new())
    }

    /// Whether a change matches whatever the item was before. Then any later write to an old item
    /// matches, although its effect was long ago or was never wanted.
    pub fn passes_any_change(&self) -> bool {
        evaluate::passes_any_change(&self.pattern)
    }

    /// What is allowed but probably not intended, or works differently in Lambda.
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }
}

impl FromStr for Filter {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

/// Filters of which one must match, and an additional condition. Without filters every record matches.
#[derive(Clone, Default)]
pub struct Filters {
    patterns: Vec<Filter>,
    condition: Option<Condition>,
}

/// A condition that a pattern cannot express.
type Condition = Arc<dyn Fn(&Record) -> bool + Send + Sync>;

impl Filters {
    /// The pattern for new items: the default for confirmations.
    pub const INSERTS: &str = r#"{"eventName": ["INSERT"]}"#;

    /// One of these must match.
    pub fn new(filters: impl IntoIterator<Item = Filter>) -> Self {
        Self {
            patterns: filters.into_iter().collect(),
            condition: None,
        }
    }

    /// Adds a condition, for what a pattern cannot express.
    #[must_use]
    pub fn and(self, condition: impl Fn(&Record) -> bool + Send + Sync + 'static) -> Self {
        Self {
            condition: Some(Arc::new(condition)),
            ..self
        }
    }

    /// Whether the record matches the patterns.
    pub fn matches<'a>(&self, subject: impl Into<Subject<'a>>) -> bool {
        let subject = subject.into();
        let of = &self.patterns;
        of.is_empty() || of.iter().any(|filter| filter.matches(subject))
    }

    /// Whether the handler gets a record of this stream: it matches, and it belongs to this Region.
    pub(crate) fn want(&self, record: &Record, stream: &str, home: Option<&HomeRegion>) -> bool {
        let subject = Subject::new(record).from_stream(stream);
        self.matches(subject)
            && home.is_none_or(|home| home.is_of(record))
            && self.condition.as_ref().is_none_or(|holds| holds(record))
    }

    /// Whether the record matches, and if not, why, for each filter.
    pub fn explain<'a>(&self, subject: impl Into<Subject<'a>>) -> Explanation {
        let subject = subject.into();
        let mut mismatches = Vec::new();
        for (filter, of) in self.patterns.iter().enumerate() {
            match of.mismatch(subject) {
                None => return Explanation::Match { filter },
                Some(mismatch) => mismatches.push(mismatch),
            }
        }
        if mismatches.is_empty() {
            return Explanation::NoFilters;
        }
        Explanation::NoMatch { mismatches }
    }
}

impl fmt::Debug for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filters")
            .field("patterns", &self.patterns)
            .field("condition", &self.condition.is_some())
            .finish()
    }
}

/// The result for a record, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explanation {
    /// There are no filters: it passes.
    NoFilters,
    /// It passes.
    Match {
        /// The index of the first filter that matches, from 0.
        filter: usize,
    },
    /// It does not pass.
    NoMatch {
        /// The first reason of each filter, in their order.
        mismatches: Vec<Mismatch>,
    },
}

/// Why a pattern does not match. It contains values of the record: do not log it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The path in the event, such as `dynamodb.NewImage.status.S`. If no alternative of a `$or`
    /// matches, this is the reason of the first one, under `$or[0]`.
    pub path: String,
    /// What the pattern allows there, as it was written.
    pub expected: String,
    /// The value found there, as JSON; `None` if there is none.
    pub found: Option<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found.as_deref().unwrap_or("nothing");
        write!(
            f,
            "{}: expected {}, found {found}",
            self.path, self.expected
        )
    }
}

/// What looks wrong in a valid pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Remark {
    /// No stream record can ever match here.
    #[error("{path}: {why}")]
    NeverMatches {
        /// The path in the pattern.
        path: String,
        /// The reason.
        why: String,
    },
    /// Every stream record matches here.
    #[error("{path}: {why}")]
    AlwaysMatches {
        /// The path in the pattern.
        path: String,
        /// The reason.
        why: String,
    },
    /// A number is compared with a DynamoDB number: by value here, never equal with Lambda.
    #[error("{path}: numbers are compared by value here; with Lambda they never equal an N")]
    NumericOnDynamoDbNumber {
        /// The path in the pattern.
        path: String,
    },
    /// Lambda would reject it for its length.
    #[error("the pattern has {length} characters; Lambda takes {LAMBDA_LENGTH} at most")]
    LongerThanLambdaTakes {
        /// Its length in characters.
        length: usize,
    },
}

/// An error in a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}{}: {problem}", at(.path))]
pub struct PatternError {
    /// The field, such as `dynamodb.NewImage.status`; empty if the text is not JSON.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

fn at(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!(", at {path}")
    }
}

/// Names on the path, on one line: names can contain line breaks.
fn place(names: &[String]) -> String {
    let mut place = String::new();
    for c in names.join(".").chars() {
        if c.is_control() {
            place.extend(c.escape_default());
        } else {
            place.push(c);
        }
    }
    place
}

/// An error at a byte of the text.
#[derive(Debug)]
struct Mistake {
    at: usize,
    path: String,
    problem: String,
}

impl Mistake {
    fn new(at: usize, path: &str, problem: impl fmt::Display) -> Self {
        let (path, problem) = (path.to_owned(), problem.to_string());
        Self { at, path, problem }
    }

    fn in_text(self, text: &str) -> PatternError {
        let before = text.get(..self.at).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        PatternError {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
            path: self.path,
            problem: self.problem,
        }
    }
}
