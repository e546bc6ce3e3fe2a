//! Where the mail server's password comes from. A flag would show it to other users of the machine.

use std::path::PathBuf;

use crate::confirmation::smtp::{Reload, Secret};
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::cli::fault::Fault;
use crate::cli::host::aws;

/// The password.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Mail server")]
#[group(multiple = false)]
#[expect(
    clippy::struct_field_names,
    reason = "clap names the flags after the fields"
)]
pub struct PasswordArgs {
    /// Password. Prefer the environment variable, which does not show in the process list
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "AFTERCOMMIT_SMTP_PASSWORD",
        hide_env_values = true,
        value_parser = secret
    )]
    smtp_password: Option<Secret>,
    /// File with the password; a line end after it is ignored. Read again when the mail server rejects the
    /// login
    #[arg(long, value_name = "FILE", env = "AFTERCOMMIT_SMTP_PASSWORD_FILE")]
    smtp_password_file: Option<PathBuf>,
    /// Secret in AWS Secrets Manager: the bare password, or JSON with the member `password`. Read again
    /// when the mail server rejects the login
    #[arg(long, value_name = "ARN", env = "AFTERCOMMIT_SMTP_PASSWORD_SECRET")]
    smtp_password_secret: Option<String>,
}

impl PasswordArgs {
    /// The password, if one is set.
    pub async fn read(&self) -> Result<Option<Secret>, Fault> {
        if let Some(path) = &self.smtp_password_file {
            let text = std::fs::read_to_string(path).map(Zeroizing::new);
            let text = text.with_context(|| format!("--smtp-password-file {}", path.display()));
            let text = text.map_err(Fault::Setting)?;
            let password = text.trim_end_matches(['\r', '\n']).to_owned();
            return Ok(Some(Secret::new(password)));
        }
        if let Some(arn) = &self.smtp_password_secret {
            let text = aws::secret(arn).await?;
            return Ok(Some(password_in(&text)));
        }
        Ok(self.smtp_password.clone())
    }
}

impl PasswordArgs {
    /// How to read the password again, if its source can change.
    pub fn reload(&self) -> Option<Reload> {
        if self.smtp_password_file.is_none() && self.smtp_password_secret.is_none() {
            return None;
        }
        let from = self.clone();
        Some(Reload::by(move || {
            let from = from.clone();
            async move {
                let password = from.read().await.map_err(|fault| anyhow!("{fault}"))?;
                password.context("the setting no longer holds a password")
            }
        }))
    }
}

/// JSON with a password. Other members are ignored.
#[derive(Deserialize)]
struct WithPassword {
    password: String,
}

/// The console and the rotation of Secrets Manager store JSON.
fn password_in(text: &str) -> Secret {
    let json: Result<WithPassword, _> = serde_json::from_str(text);
    Secret::new(json.map_or_else(|_| text.to_owned(), |json| json.password))
}

/// Parser for a flag whose value must not be shown.
#[expect(clippy::unnecessary_wraps, reason = "the form that clap asks for")]
pub fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::password_in;

    #[test]
    fn a_secret_is_a_password_or_json_with_one() {
        for (secret, password) in [
            ("s3cret", "s3cret"),
            (r#"{"username": "u", "password": "p"}"#, "p"),
            (r#"{"other": "p"}"#, r#"{"other": "p"}"#),
            ("12345", "12345"),
        ] {
            assert_eq!(password_in(secret).reveal(), password);
        }
    }
}
