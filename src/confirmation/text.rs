//! Text from data or from a template, made safe for its destination.

/// Text for a header: one line of at most `max` characters.
///
/// Control characters (including CR, LF and NUL), the Unicode line separators and the marks that change
/// the writing direction become spaces, and runs of spaces one space. `=?` is separated, so that a
/// reader does not take the text for an encoded word ([RFC
/// 2047](https://www.rfc-editor.org/rfc/rfc2047)). Text that is cut ends in an ellipsis.
pub(super) fn clean_line(text: &str, max: usize) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let spaced = text.replace(|c: char| harmful(c) || c.is_whitespace(), " ");
    let words: Vec<_> = spaced.split_ascii_whitespace().collect();
    let line = words.join(" ").replace("=?", "= ?");
    if line.chars().count() <= max {
        return line;
    }
    let cut: String = line.chars().take(max.saturating_sub(1)).collect();
    format!("{}…", cut.trim_end())
}

/// Text for a body: lines end in CRLF, and tab is the only other control character.
///
/// No bare CR or LF remains: mail servers disagree about them, which [SMTP
/// smuggling](https://www.postfix.org/smtp-smuggling.html) exploits.
pub(super) fn clean_body(text: &str) -> String {
    let mut body = String::with_capacity(text.len() + text.len() / 32);
    for line in text.replace("\r\n", "\n").replace('\r', "\n").split('\n') {
        body.extend(line.chars().filter(|c| *c == '\t' || !c.is_control()));
        body.push_str("\r\n");
    }
    let end = body.trim_end_matches("\r\n").len();
    body.truncate(end);
    body.push_str("\r\n");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_loses_what_could_end_it_or_turn_it_around() {
        assert_eq!(
            clean_line("a\r\nBcc: x\0\u{202e}y\u{2028}z", 99),
            "a Bcc: x y z"
        );
        assert_eq!(clean_line("=?utf-8?Q?=0D=0A?=", 99), "= ?utf-8?Q?=0D=0A?=");
        assert_eq!(clean_line("  \t ", 99), "");
    }

    #[test]
    fn a_line_that_is_too_long_ends_in_an_ellipsis() {
        assert_eq!(clean_line("äöüß", 4), "äöüß");
        assert_eq!(clean_line("äöü ß", 4), "äöü…");
        assert_eq!(clean_line("äö üß", 4), "äö…");
    }

    #[test]
    fn a_body_has_only_whole_line_ends() {
        assert_eq!(clean_body("a\rb\nc\r\nd\n\n\n"), "a\r\nb\r\nc\r\nd\r\n");
        assert_eq!(clean_body("a\0b\u{1b}[31m\tc"), "ab[31m\tc\r\n");
        assert_eq!(clean_body(""), "\r\n");
    }
}
