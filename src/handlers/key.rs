//! The effect key of a change.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::core::group::EffectName;
use crate::core::record::Record;
use crate::engine::handler::{Context, Failure};
use crate::stores::ledger::EffectKey;

/// Makes the second part of an effect key.
type IdOf = Arc<dyn Fn(&Record) -> Result<String, Failure> + Send + Sync>;

/// How effect keys are made.
#[derive(Clone, Default)]
pub(super) struct Keys {
    pub effect: EffectName,
    /// `None`: each change has a key of its own.
    pub id_of: Option<IdOf>,
}

impl Keys {
    /// The effect key.
    pub fn of(&self, record: &Record, context: &Context) -> Result<EffectKey, Failure> {
        let id = match &self.id_of {
            Some(id_of) => id_of(record)?,
            None => id_of_change(record, context),
        };
        Ok(EffectKey::new(&self.effect, &id))
    }
}

/// An id that each change has alone, made of the stream, the item, and the change's place in its history.
fn id_of_change(record: &Record, context: &Context) -> String {
    let key = record.key();
    let place = [
        context.stream(),
        key.as_str(),
        record.sequence_number.as_str(),
    ];
    let hash = Sha256::digest(place.join("\n"));
    URL_SAFE_NO_PAD.encode(&hash[..16])
}

/// The text as a header may carry it, and still different for different texts.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => shown.push_str("%25"),
            b'!'..=b'~' => shown.push(char::from(byte)),
            byte => shown.extend(["%", &format!("{byte:02X}")]),
        }
    }
    shown
}
