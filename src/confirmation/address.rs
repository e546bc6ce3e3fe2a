//! Email addresses, restricted to those that this program sends to.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use idna::AsciiDenyList;
pub use lettre::Address;
pub use lettre::message::Mailbox;

use super::text::clean_line;

/// The longest display name that is kept, in characters.
const NAME_CHARS: usize = 100;

/// Which domains may be mailed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Domains {
    /// Only domains with a dot, as every domain on the internet has.
    #[default]
    Dotted,
    /// Also single names such as `localhost`, for development and closed networks.
    Any,
}

/// Why an address is refused. It never contains the address, so it can be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no `@`, or nothing on one side of it.
    #[error("an address has the form name@example.com")]
    Form,
    /// The part before the `@`.
    #[error(
        "the part before the @ can have 1 to 64 bytes of letters, digits, dots and !#$%&'*+-/=?^_`{{|}}~"
    )]
    Local,
    /// The part behind the `@`.
    #[error("the part after the @ is not a domain name")]
    Domain,
    /// An address literal.
    #[error("the part after the @ is an IP address: write a domain name")]
    Literal,
    /// A domain without a dot.
    #[error("the domain has no dot")]
    Dotless,
}

/// Parses an address such as `name@example.com`.
///
/// Deliberately narrower than [RFC 5321](https://www.rfc-editor.org/rfc/rfc5321#section-4.1.2): no IP
/// literals, and in quotes only characters that are allowed outside of them, too. A local part with a
/// dot at its beginning or end, or with two in a row, as carriers have issued them, is written as a
/// quoted string: `john.@example.com` becomes `"john."@example.com`. The local part can contain
/// characters beyond ASCII ([RFC 6531](https://www.rfc-editor.org/rfc/rfc6531)): then the mail server
/// must offer SMTPUTF8. The domain is converted to its ASCII form (Punycode, [RFC
/// 5891](https://www.rfc-editor.org/rfc/rfc5891)).
///
/// # Errors
///
/// [`AddressError`] says what is wrong, without the address.
pub fn parse_address(text: &str, domains: Domains) -> Result<Address, AddressError> {
    let (local, domain) = text.trim().rsplit_once('@').ok_or(AddressError::Form)?;
    if local.is_empty() || domain.is_empty() {
        return Err(AddressError::Form);
    }
    let local = local_part(local).ok_or(AddressError::Local)?;
    let domain = ascii_domain(domain, domains)?;
    Address::new(local, domain).map_err(|_| AddressError::Form)
}

/// The local part as written in a command: in quotes if it does not consist of atoms with single dots
/// between them. A local part that needs quotes for another reason is refused, so that no quote,
/// backslash or space gets into a command or a header.
fn local_part(local: &str) -> Option<Cow<'_, str>> {
    let inner = local
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let inner = inner.unwrap_or(local);
    if inner.is_empty() || !inner.chars().all(|c| c == '.' || is_atom_char(c)) {
        return None;
    }
    let written = if inner.split('.').all(|atom| !atom.is_empty()) {
        Cow::Borrowed(inner)
    } else {
        Cow::Owned(format!("\"{inner}\""))
    };
    (written.len() <= 64).then_some(written)
}

/// Parses a mailbox: `Shop <orders@example.com>`, `"Shop, Inc." <orders@example.com>` or the address
/// alone.
///
/// # Errors
///
/// As [`parse_address`].
pub fn parse_mailbox(text: &str) -> Result<Mailbox, AddressError> {
    let text = text.trim();
    let Some(inner) = text.strip_suffix('>') else {
        return Ok(Mailbox::new(None, parse_address(text, Domains::Any)?));
    };
    let (name, address) = inner.rsplit_once('<').ok_or(AddressError::Form)?;
    let name = name.trim();
    let name = match name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => name.to_owned(),
    };
    Ok(mailbox(Some(&name), parse_address(address, Domains::Any)?))
}

/// A mailbox whose display name is safe in a header (lettre panics on CR, LF and NUL).
pub(super) fn mailbox(name: Option<&str>, address: Address) -> Mailbox {
    let name = name.map(|name| clean_line(name, NAME_CHARS));
    Mailbox::new(name.filter(|name| !name.is_empty()), address)
}

/// The characters of an atom, RFC 5322 section 3.2.3, and what RFC 6531 adds to them.
fn is_atom_char(c: char) -> bool {
    if c.is_ascii() {
        c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)
    } else {
        clean_line(c.encode_utf8(&mut [0; 4]), 1).starts_with(c)
    }
}

/// The domain in its ASCII form, at most 253 bytes in labels of 1 to 63.
fn ascii_domain(domain: &str, domains: Domains) -> Result<String, AddressError> {
    if domain.starts_with('[') || domain.parse::<Ipv4Addr>().is_ok() {
        return Err(AddressError::Literal);
    }
    let ascii = idna::domain_to_ascii_cow(domain.as_bytes(), AsciiDenyList::STD3)
        .map_err(|_| AddressError::Domain)?;
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    if ascii.len() > 253 || !ascii.split('.').all(label_ok) {
        return Err(AddressError::Domain);
    }
    // Full-width digits and dots become an address only here.
    let top = ascii.rsplit('.').next().unwrap_or_default();
    if top.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AddressError::Literal);
    }
    if domains == Domains::Dotted && !ascii.contains('.') {
        return Err(AddressError::Dotless);
    }
    Ok(ascii.into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn parsed(text: &str) -> Result<String, AddressError> {
        parse_address(text, Domains::Dotted).map(|address| address.to_string())
    }

    #[test]
    fn ordinary_addresses_are_taken() {
        for address in [
            "ada@example.com",
            "o'hara+shop@mail.example.co.uk",
            "用户@example.com",
        ] {
            assert_eq!(parsed(address), Ok(address.to_owned()));
        }
        assert_eq!(
            parsed(" ada@Example.COM\n"),
            Ok("ada@example.com".to_owned())
        );
    }

    #[test]
    fn dots_that_atoms_cannot_have_are_written_in_quotes() {
        for (text, expected) in [
            ("try..this@docomo.example", r#""try..this"@docomo.example"#),
            ("john.@ezweb.example", r#""john."@ezweb.example"#),
            (".jo@ezweb.example", r#"".jo"@ezweb.example"#),
            (r#""john."@ezweb.example"#, r#""john."@ezweb.example"#),
            (r#""john"@ezweb.example"#, "john@ezweb.example"),
        ] {
            assert_eq!(parsed(text), Ok(expected.to_owned()));
        }
    }

    #[test]
    fn a_domain_beyond_ascii_becomes_punycode() {
        let ascii = "ada@xn--bcher-kva.example".to_owned();
        assert_eq!(parsed("ada@bücher.example"), Ok(ascii.clone()));
        assert_eq!(parsed("ada@BÜCHER。example"), Ok(ascii));
    }

    #[test]
    fn what_could_smuggle_or_cannot_be_reached_is_refused() {
        use AddressError::*;
        let long_local = format!("{}@example.com", "a".repeat(65));
        let dotted = format!("{}..@example.com", "a".repeat(61));
        let long_domain = format!("a@{}.com", "b".repeat(64));
        let cases = [
            ("", Form),
            ("ada", Form),
            ("@example.com", Form),
            ("ada@", Form),
            ("a b@example.com", Local),
            ("\"a b\"@example.com", Local),
            ("a\r\nRCPT TO:<x@y.z>@example.com", Local),
            ("a\0@example.com", Local),
            ("a@b@example.com", Local),
            ("\"\"@example.com", Local),
            ("\"a@example.com", Local),
            ("\"a\\\"b..\"@example.com", Local),
            ("a..b <x@y.z>@example.com", Local),
            ("..\r\nDATA@example.com", Local),
            (&dotted, Local),
            ("a\u{202e}b@example.com", Local),
            (&long_local, Local),
            ("a@exa mple.com", Domain),
            ("a@example.com\r\nX: y", Domain),
            ("a@-example.com", Domain),
            ("a@example..com", Domain),
            ("a@example.com.", Domain),
            (&long_domain, Domain),
            ("a@[127.0.0.1]", Literal),
            ("a@127.0.0.1", Literal),
            ("a@１２７.0.0.1", Literal),
            ("a@localhost", Dotless),
        ];
        for (text, error) in cases {
            assert_eq!(parsed(text), Err(error), "{text:?}");
        }
        assert!(parse_address("a@localhost", Domains::Any).is_ok());
    }

    #[test]
    fn a_mailbox_is_read_with_and_without_its_name() {
        let shown = |text| parse_mailbox(text).map(|m| (m.name, m.email.to_string()));
        let shop = || "orders@example.com".to_owned();
        assert_eq!(shown("orders@example.com"), Ok((None, shop())));
        assert_eq!(shown("<orders@example.com>"), Ok((None, shop())));
        assert_eq!(
            shown("Bücher & Co <orders@example.com>"),
            Ok((Some("Bücher & Co".to_owned()), shop()))
        );
        assert_eq!(
            shown(r#""Shop \"24\", Inc." <orders@example.com>"#),
            Ok((Some(r#"Shop "24", Inc."#.to_owned()), shop()))
        );
        assert_eq!(shown("Shop orders@example.com>"), Err(AddressError::Form));
    }
}
