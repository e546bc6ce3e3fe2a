//! Compiles a pattern, and adds remarks on what can never match.

use super::evaluate::passes_text;
use super::json::{JsonKind, JsonMember, JsonValue};
use super::leaf;
use super::pattern::{Clause, Leaf, Literal, Node, Object, Test};
use super::shape::Shape;
use super::{Mistake, Remark, place};

/// What is collected while descending.
pub(super) struct Compiler {
    pub(super) remarks: Vec<Remark>,
    path: Vec<String>,
}

impl Compiler {
    /// Compiles a whole pattern.
    pub(super) fn compile(value: &JsonValue<'_>) -> Result<(Object, Vec<Remark>), Mistake> {
        let mut compiler = Self {
            remarks: Vec::new(),
            path: Vec::new(),
        };
        let JsonKind::Object(members) = &value.kind else {
            let found = value.kind.word();
            let problem = format!("a pattern is a JSON object such as {EXAMPLE}, this is {found}");
            return Err(Mistake::new(value.at, "", problem));
        };
        let members: Vec<_> = members.iter().collect();
        let object = compiler.object(value, &members, Some(Shape::Event))?;
        Ok((object, compiler.remarks))
    }

    fn path(&self) -> String {
        place(&self.path)
    }

    fn mistake(&self, at: usize, problem: impl Into<String>) -> Mistake {
        Mistake::new(at, &self.path(), problem.into())
    }

    fn object(
        &mut self,
        value: &JsonValue<'_>,
        members: &[&JsonMember<'_>],
        shape: Option<Shape>,
    ) -> Result<Object, Mistake> {
        if members.is_empty() {
            return Err(self.mistake(value.at, "an empty object allows nothing: name a field"));
        }
        let mut parts = Vec::new();
        for (n, member) in members.iter().enumerate() {
            let name = &member.name;
            if members[..n].iter().any(|before| before.name == *name) {
                continue;
            }
            let same: Vec<_> = members.iter().filter(|one| one.name == *name).collect();
            if let (true, JsonKind::List(alternatives)) = (name == "$or", &member.value.kind) {
                if let Some(again) = same.get(1) {
                    return Err(self.twice(again));
                }
                self.path.push("$or".to_owned());
                parts.push(self.any_of(&member.value, alternatives, shape)?);
            } else {
                self.path.push(name.clone());
                let node = self.field(&same, shape)?;
                parts.push(Clause::Field(name.clone(), node));
            }
            self.path.pop();
        }
        let text = one_line(value.text);
        Ok(Object { parts, text })
    }

    fn twice(&self, again: &JsonMember<'_>) -> Mistake {
        let name = &again.name;
        let problem = format!(
            "{name:?} is named twice: put both conditions into one (objects that are named twice \
             are merged, lists are not)"
        );
        self.mistake(again.at, problem)
    }

    /// A field, which several members may name: objects with the same name are merged.
    fn field(&mut self, same: &[&&JsonMember<'_>], parent: Option<Shape>) -> Result<Node, Mistake> {
        let first = same[0];
        let shape = self.shape_of(first, parent);
        let mut members = Vec::new();
        for member in same {
            match &member.value.kind {
                JsonKind::Object(more) => members.extend(more),
                JsonKind::List(tests) if same.len() == 1 => {
                    let tests = leaf::read(&member.value, tests, &self.path())?;
                    let text = one_line(member.value.text);
                    let leaf = Leaf { tests, text };
                    self.doubt_leaf(&leaf, shape);
                    return Ok(Node::Leaf(leaf));
                }
                JsonKind::List(_) => return Err(self.twice(member)),
                other => {
                    let (found, text) = (other.word(), one_line(member.value.text));
                    let problem = format!(
                        "expected a list of allowed values such as [{text}], or an object, found \
                         {found}"
                    );
                    return Err(self.mistake(member.value.at, problem));
                }
            }
        }
        if shape.is_some_and(Shape::is_leaf) {
            self.never("an object of the pattern never matches the plain value here");
        }
        let value = &first.value;
        self.object(value, &members, shape).map(Node::Object)
    }

    fn any_of(
        &mut self,
        value: &JsonValue<'_>,
        alternatives: &[JsonValue<'_>],
        shape: Option<Shape>,
    ) -> Result<Clause, Mistake> {
        if alternatives.len() < 2 {
            let problem = "$or needs at least two objects to choose from";
            return Err(self.mistake(value.at, problem));
        }
        let mut objects = Vec::new();
        for alternative in alternatives {
            let JsonKind::Object(members) = &alternative.kind else {
                let found = alternative.kind.word();
                let problem = format!("$or chooses between objects, found {found}");
                return Err(self.mistake(alternative.at, problem));
            };
            let members: Vec<_> = members.iter().collect();
            objects.push(self.object(alternative, &members, shape)?);
        }
        Ok(Clause::AnyOf(objects))
    }

    /// What a stream record has at this field, as far as that is known.
    fn shape_of(&mut self, member: &JsonMember<'_>, parent: Option<Shape>) -> Option<Shape> {
        let parent = parent?;
        let shape = parent.field(&member.name);
        if shape.is_none() && !asks_for_absence(&member.value) {
            self.never(&format!(
                "a stream record never has this field; at this place it has {}",
                parent.fields()
            ));
        }
        shape
    }

    fn doubt_leaf(&mut self, leaf: &Leaf, shape: Option<Shape>) {
        let Some(shape) = shape else { return };
        if !shape.is_leaf() {
            self.doubt_above_leaves(leaf, shape);
            return;
        }
        let by_value = |test: &Test| match test {
            Test::Within(_) | Test::Is(Literal::Number(_)) => true,
            Test::AnythingBut(all) => all.iter().any(|one| matches!(one, Literal::Number(_))),
            _ => false,
        };
        if shape == Shape::Digits && leaf.tests.iter().any(by_value) {
            let path = self.path();
            self.remarks.push(Remark::NumericOnDynamoDbNumber { path });
        }
        if leaf.tests.iter().all(|test| matches!(test, Test::Null)) {
            self.never("a stream record never contains null: write {\"NULL\": [true]}");
            return;
        }
        for test in &leaf.tests {
            if let Some(why) = impossible(test, shape) {
                self.never(&why);
            }
        }
    }

    /// A list where a record has an object: the type letter is missing.
    fn doubt_above_leaves(&mut self, leaf: &Leaf, shape: Shape) {
        let absent = |test: &Test| matches!(test, Test::Exists(false));
        let fields = shape.fields();
        if !leaf.tests.iter().any(absent) {
            self.never(&format!(
                "this is not a plain value, but an object with {fields}"
            ));
            return;
        }
        let mut why = format!(
            "always holds, whether it is there or not: \"exists\" asks for a plain value, and this \
             is an object with {fields}"
        );
        if shape == Shape::Typed {
            why += "; for an attribute that is not there write [{\"exists\": false}] under its letter, \
                    such as {\"S\": [{\"exists\": false}]}";
        }
        let path = self.path();
        self.remarks.push(Remark::AlwaysMatches { path, why });
    }

    fn never(&mut self, why: &str) {
        let (path, why) = (self.path(), why.to_owned());
        self.remarks.push(Remark::NeverMatches { path, why });
    }
}

/// Why no value of this shape can pass the test; `None` if one can.
fn impossible(test: &Test, shape: Shape) -> Option<String> {
    match (shape, test) {
        (_, Test::Exists(_) | Test::AnythingBut(_) | Test::Null)
        | (Shape::Truth, Test::Is(Literal::Truth(_))) => None,
        (Shape::Word(words), test) if !words.iter().any(|word| passes_text(test, word)) => {
            let found = match test {
                Test::Is(Literal::Text(value)) => format!("{value:?} is never the value here"),
                _ => "one of the tests never holds".to_owned(),
            };
            Some(format!("{found}: the value is one of {}", words.join(", ")))
        }
        (Shape::Truth, _) => {
            Some("the value is true or false, without quotes: write [true] or [false]".to_owned())
        }
        (Shape::Text, Test::Is(Literal::Truth(_) | Literal::Number(_)) | Test::Within(_)) => {
            Some("the value is a text: put quotes around what it is compared with".to_owned())
        }
        (Shape::Digits, Test::Is(Literal::Truth(_))) => {
            Some("the value is a number, never true or false".to_owned())
        }
        _ => None,
    }
}

/// Whether nothing is allowed here.
fn asks_for_absence(value: &JsonValue<'_>) -> bool {
    let nothing = |test: &JsonValue<'_>| match &test.kind {
        JsonKind::Object(operator) => operator
            .iter()
            .any(|one| one.name == "exists" && matches!(one.value.kind, JsonKind::Truth(false))),
        _ => false,
    };
    matches!(&value.kind, JsonKind::List(tests) if tests.iter().any(nothing))
}

const EXAMPLE: &str = r#"{"eventName": ["INSERT"]}"#;

/// The value as it was written, on one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
