//! What an iSCSI login has to prove. The secrets are kept, handed to engines, and shown to nobody.

use std::fmt;

use ankole_proto::rpc::v1 as rpc;

/// How long a secret is: RFC 7143 (section 12.1) asks for 96 bits where IPsec does not help.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 12..=128;

/// The longest user name: what fits the text value of an iSCSI key in every initiator.
const USER_BYTES_MAX: usize = 223;

/// A shared secret. It is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the store and for engines.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who may log in to a volume's target, and what the target proves in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chap {
    /// What initiators log in as.
    pub user: String,
    /// Proves it.
    pub secret: Secret,
    /// The target's user and secret; `None`: it proves nothing.
    pub mutual: Option<(String, Secret)>,
}

/// Why settings cannot be used. Never tells the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChapError {
    /// Not a user name.
    #[error("a CHAP user has 1 to {USER_BYTES_MAX} visible ASCII characters; choose another name")]
    User,
    /// Not a secret.
    #[error(
        "a CHAP secret has {} to {} bytes and no control characters; choose another one",
        SECRET_BYTES.start(),
        SECRET_BYTES.end()
    )]
    Secret,
    /// Whoever can prove one could answer for the other.
    #[error(
        "the mutual CHAP secret must not be the same as the one-way secret; choose another one"
    )]
    Same,
    /// Only a half.
    #[error("mutual CHAP needs both a user and a secret; give both, or none")]
    Half,
}

impl Chap {
    /// The settings in a message.
    ///
    /// # Errors
    ///
    /// [`ChapError`].
    pub fn from_message(message: &rpc::Chap) -> Result<Self, ChapError> {
        let secret = secret(&message.secret)?;
        let mutual = match (
            message.mutual_user.is_empty(),
            message.mutual_secret.is_empty(),
        ) {
            (true, true) => None,
            (false, false) => Some((
                user(&message.mutual_user)?,
                self::secret(&message.mutual_secret)?,
            )),
            _ => return Err(ChapError::Half),
        };
        if mutual.as_ref().is_some_and(|(_, mutual)| *mutual == secret) {
            return Err(ChapError::Same);
        }
        Ok(Self {
            user: user(&message.user)?,
            secret,
            mutual,
        })
    }

    /// The message with these settings.
    pub fn to_message(&self) -> rpc::Chap {
        let (mutual_user, mutual_secret) = match &self.mutual {
            Some((user, secret)) => (user.clone(), secret.reveal().to_owned()),
            None => (String::new(), String::new()),
        };
        rpc::Chap {
            user: self.user.clone(),
            secret: self.secret.reveal().to_owned(),
            mutual_user,
            mutual_secret,
        }
    }
}

fn user(text: &str) -> Result<String, ChapError> {
    let legal = (1..=USER_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    legal.then(|| text.to_owned()).ok_or(ChapError::User)
}

fn secret(text: &str) -> Result<Secret, ChapError> {
    let legal = SECRET_BYTES.contains(&text.len()) && !text.chars().any(char::is_control);
    legal
        .then(|| Secret(text.to_owned()))
        .ok_or(ChapError::Secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> rpc::Chap {
        rpc::Chap {
            user: "alice".into(),
            secret: "open sesame 1".into(),
            mutual_user: "target".into(),
            mutual_secret: "open sesame 2".into(),
        }
    }

    #[test]
    fn settings_read_back_and_show_no_secret() {
        let chap = Chap::from_message(&message()).unwrap();
        assert_eq!(chap.to_message(), message());
        let shown = format!("{chap:?}");
        assert!(
            shown.contains("alice") && !shown.contains("sesame"),
            "{shown}"
        );
    }

    #[test]
    fn bad_settings_are_refused_without_telling_the_secret() {
        type Damage = fn(&mut rpc::Chap);
        let damages: [(Damage, ChapError); 9] = [
            (|m| m.user.clear(), ChapError::User),
            (|m| m.user = "a b".into(), ChapError::User),
            (|m| m.user = "x".repeat(224), ChapError::User),
            (|m| m.secret = "elevenbytes".into(), ChapError::Secret),
            (|m| m.secret = "x".repeat(129), ChapError::Secret),
            (|m| m.secret = "with\nnewline".into(), ChapError::Secret),
            (|m| m.mutual_secret = m.secret.clone(), ChapError::Same),
            (|m| m.mutual_user.clear(), ChapError::Half),
            (|m| m.mutual_secret.clear(), ChapError::Half),
        ];
        for (damage, expected) in damages {
            let mut damaged = message();
            damage(&mut damaged);
            let error = Chap::from_message(&damaged).unwrap_err();
            assert_eq!(error, expected);
            assert!(!error.to_string().contains("sesame"));
        }
        for bytes in [12, 128] {
            let mut edge = message();
            edge.secret = "y".repeat(bytes);
            assert!(Chap::from_message(&edge).is_ok());
        }
    }
}
