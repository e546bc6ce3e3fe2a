//! What the policies allow.

use super::{Permissions, read};

/// A statement of a policy document.
pub struct Statement {
    /// The document that contains it.
    pub document: String,
    pub sid: String,
    pub actions: Vec<String>,
    /// As they are written.
    pub resources: Vec<String>,
}

/// What these documents (file and name) allow, together.
pub fn by(documents: &[(&str, &str)]) -> Permissions {
    let mut all = Permissions::new();
    for (path, document) in documents {
        let statements = statements(&read(path));
        let found = statements.iter().filter(|one| one.document == *document);
        for one in found {
            for on in &one.resources {
                // The one object that both modules pass around.
                let on = on.replace("var.confirmation.", "var.");
                all.extend(
                    one.actions
                        .iter()
                        .map(|action| (on.clone(), action.clone())),
                );
            }
        }
    }
    assert!(!all.is_empty(), "{documents:?}");
    all
}

/// All statements of a file with policy documents. `terraform fmt` has seen to its shape.
pub fn statements(text: &str) -> Vec<Statement> {
    let mut all: Vec<Statement> = Vec::new();
    let mut document = String::new();
    let mut each = String::new();
    for block in blocks(text) {
        if let Some(rest) = block.strip_prefix("data \"aws_iam_policy_document\" \"") {
            rest.split('"').next().unwrap().clone_into(&mut document);
        } else if block == "statement {" || block == "content {" {
            all.push(Statement {
                document: document.clone(),
                sid: String::new(),
                actions: Vec::new(),
                resources: Vec::new(),
            });
        } else if let Some(value) = attribute(&block, "for_each") {
            value.clone_into(&mut each);
        } else if let Some(one) = all.last_mut() {
            if let Some(value) = attribute(&block, "sid") {
                value.trim_matches('"').clone_into(&mut one.sid);
            } else if let Some(value) = attribute(&block, "actions") {
                let actions = list(value).into_iter();
                one.actions = actions
                    .map(|one| one.trim_matches('"').to_owned())
                    .collect();
            } else if let Some(value) = attribute(&block, "resources") {
                let resources = list(value).into_iter();
                one.resources = resources
                    .map(|on| on.replace("statement.value", &each))
                    .collect();
            }
        }
    }
    // Who can assume a role is not a permission of the role.
    all.retain(|one| !one.resources.is_empty());
    all
}

/// The lines, with a list over several lines as one, and without comments.
fn blocks(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('#') {
            continue;
        }
        match all.last_mut() {
            Some(last) if open => last.push_str(line),
            _ => all.push(line.to_owned()),
        }
        open = if open {
            line != "]"
        } else {
            line.ends_with("= [")
        };
    }
    all
}

fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (key, value) = line.split_once('=')?;
    (key.trim() == name).then(|| value.trim())
}

/// The elements of `[a, b]`; a value that is a list already is its own element.
fn list(value: &str) -> Vec<String> {
    let Some(inner) = value
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    else {
        return vec![value.to_owned()];
    };
    let elements = inner.split(',').map(str::trim);
    elements
        .filter(|one| !one.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn statements_are_read_however_they_are_written() {
    let text = r#"
data "aws_iam_policy_document" "one" {
  statement {
    sid = "A"
    actions = [
      "x:One", # Not more.
      "x:Two",
    ]
    resources = [var.a, "${var.b}/c/*"]
  }

  dynamic "statement" {
    for_each = var.d[*]

    content {
      sid       = "B"
      actions   = ["x:Three"]
      resources = [statement.value]
    }
  }
}
"#;
    let text = text.replace(" # Not more.", "");
    let all = statements(&text);
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].document, "one");
    assert_eq!(all[0].sid, "A");
    assert_eq!(all[0].actions, ["x:One", "x:Two"]);
    assert_eq!(all[0].resources, ["var.a", "\"${var.b}/c/*\""]);
    assert_eq!(all[1].sid, "B");
    assert_eq!(all[1].resources, ["var.d[*]"]);
}
