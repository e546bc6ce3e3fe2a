//! Filters: which changes a handler gets, told in AWS Lambda's event filter patterns.
//!
//! A pattern for a Lambda event source mapping can be moved over unchanged. It is JSON of the
//! event's shape, with a list of what is allowed at each leaf:
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
//! | Operator | Holds where |
//! |---|---|
//! | `"a"`, `5`, `true`, `null`, `""` | the value is this |
//! | `["a", "b"]` | one of the list holds |
//! | fields side by side | all of them hold; each must be there |
//! | `"$or": [{…}, {…}]` | one of the objects holds |
//! | `{"anything-but": ["a"]}` | the value is there, and none of these |
//! | `{"prefix": "a"}`, `{"suffix": "a"}` | the text begins, or ends, so |
//! | `{"equals-ignore-case": "a"}` | the text is this in some case |
//! | `{"numeric": [">", 1, "<=", 5]}` | the number lies there |
//! | `{"exists": true}` | a plain value (not an object) stands there, or not |
//!
//! Sources: [filter syntax](https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html#filtering-syntax),
//! [filtering DynamoDB records](https://docs.aws.amazon.com/lambda/latest/dg/with-ddb-filtering.html).
//!
//! # Numbers
//!
//! DynamoDB writes a number as a text, `{"N": "300"}`. A text in a pattern is compared with it as
//! Lambda does it, letter by letter: `"300"` is not `"300.0"`. A *number* in a pattern (bare, in
//! `numeric` or in `anything-but`) is compared by value, to the last digit: `300` is `300.0`. In
//! Lambda a number never equals an `N`, so that such a pattern lets nothing through, or, in
//! `anything-but`, everything; here it does what it says. [`Filter::remarks`] points such a
//! pattern out.
//!
//! # Lists
//!
//! A leaf that stands at a list or a set holds if one element does. An object that stands at a
//! list holds if one element has all that it asks for; what it only asks to be absent must be
//! absent from all of them.
//!
//! # What AWS leaves open
//!
//! AWS's own example names `dynamodb` twice in one object. Objects of one name are merged here, so
//! that both conditions hold, as that example means it. Lists of one name are a mistake. Lambda
//! takes up to 4,096 characters; a longer pattern works here, with a remark.

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

/// The longest pattern that Lambda takes, in characters.
///
/// Source: [FilterCriteria](https://docs.aws.amazon.com/lambda/latest/api/API_Filter.html).
const LAMBDA_LENGTH: usize = 4096;

/// A pattern, ready to be held against records.
#[derive(Debug, Clone)]
pub struct Filter {
    pattern: Object,
    remarks: Vec<Remark>,
}

impl Filter {
    /// Reads a pattern. Never panics, whatever the text.
    ///
    /// # Errors
    ///
    /// A [`PatternError`] that says where the mistake is, what it is and what is allowed there.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let read = json::read(text).and_then(|value| Compiler::compile(&value));
        let (pattern, mut remarks) = read.map_err(|mistake| mistake.in_text(text))?;
        let length = text.chars().count();
        if length > LAMBDA_LENGTH {
            remarks.push(Remark::LongerThanLambdaTakes { length });
        }
        Ok(Self { pattern, remarks })
    }

    /// Whether the record gets through.
    pub fn matches<'a>(&self, subject: impl Into<Subject<'a>>) -> bool {
        evaluate::object(&self.pattern, RecordView::Event(subject.into())) != Fit::No
    }

    /// The first reason, in the pattern's order, why the record does not get through; `None`: it
    /// does.
    pub fn mismatch<'a>(&self, subject: impl Into<Subject<'a>>) -> Option<Mismatch> {
        let event = RecordView::Event(subject.into());
        evaluate::explain(&self.pattern, event, &mut Vec::new())
    }

    /// Whether a change of an item gets through whatever the item was before: then any later write to
    /// an old item does, which had its effect long ago or never should.
    pub fn passes_any_change(&self) -> bool {
        evaluate::passes_any_change(&self.pattern)
    }

    /// What is allowed, but is probably not meant, or is not the same with Lambda.
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

/// Filters of which one must hold, and a condition beside them. None at all let everything through.
#[derive(Clone, Default)]
pub struct Filters {
    patterns: Vec<Filter>,
    condition: Option<Condition>,
}

/// What a record must satisfy besides a pattern.
type Condition = Arc<dyn Fn(&Record) -> bool + Send + Sync>;

impl Filters {
    /// The pattern of what is new: the default for confirmations.
    pub const INSERTS: &str = r#"{"eventName": ["INSERT"]}"#;

    /// One of these must hold.
    pub fn new(filters: impl IntoIterator<Item = Filter>) -> Self {
        Self {
            patterns: filters.into_iter().collect(),
            condition: None,
        }
    }

    /// The same, and this must hold besides, for what a pattern cannot say.
    #[must_use]
    pub fn and(self, condition: impl Fn(&Record) -> bool + Send + Sync + 'static) -> Self {
        Self {
            condition: Some(Arc::new(condition)),
            ..self
        }
    }

    /// Whether the record gets through the patterns.
    pub fn matches<'a>(&self, subject: impl Into<Subject<'a>>) -> bool {
        let subject = subject.into();
        let of = &self.patterns;
        of.is_empty() || of.iter().any(|filter| filter.matches(subject))
    }

    /// Whether the handler gets a record of this stream: it gets through, and is of this region.
    pub(crate) fn want(&self, record: &Record, stream: &str, home: Option<&HomeRegion>) -> bool {
        let subject = Subject::new(record).from_stream(stream);
        self.matches(subject)
            && home.is_none_or(|home| home.is_of(record))
            && self.condition.as_ref().is_none_or(|holds| holds(record))
    }

    /// Whether the record gets through, and if not, why, for each filter.
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

/// What became of a record, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explanation {
    /// There are no filters: it gets through.
    NoFilters,
    /// It gets through.
    Match {
        /// The first filter that holds, from 0.
        filter: usize,
    },
    /// It does not get through.
    NoMatch {
        /// The first reason of each filter, in their order.
        mismatches: Vec<Mismatch>,
    },
}

/// Why a pattern does not hold. Names the record's content: do not log it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Where in the event, such as `dynamodb.NewImage.status.S`. Where no alternative of a `$or`
    /// holds, the reason of the first one is told, under `$or[0]`.
    pub path: String,
    /// What the pattern allows there, as it was written.
    pub expected: String,
    /// What stands there, as JSON; `None`: nothing.
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

/// What is odd about a pattern that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Remark {
    /// No stream record can ever match here.
    #[error("{path}: {why}")]
    NeverMatches {
        /// Where in the pattern.
        path: String,
        /// Why not.
        why: String,
    },
    /// Every stream record matches here.
    #[error("{path}: {why}")]
    AlwaysMatches {
        /// Where in the pattern.
        path: String,
        /// Why.
        why: String,
    },
    /// A number is compared with a DynamoDB number: by value here, never equal with Lambda.
    #[error("{path}: numbers are compared by value here; with Lambda they never equal an N")]
    NumericOnDynamoDbNumber {
        /// Where in the pattern.
        path: String,
    },
    /// Lambda would refuse it for its length.
    #[error("the pattern has {length} characters; Lambda takes {LAMBDA_LENGTH} at most")]
    LongerThanLambdaTakes {
        /// Its length in characters.
        length: usize,
    },
}

/// A mistake in a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}{}: {problem}", at(.path))]
pub struct PatternError {
    /// The field, such as `dynamodb.NewImage.status`; empty where the text is no JSON.
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

/// Names on the way down, as one line: names may hold line ends, too.
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

/// A mistake at a byte of the text.
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
