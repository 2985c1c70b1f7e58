//! Who may log in, and how they prove it (RFC 6120, 6; RFC 4505, 4616, 5802, 7677).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use sasl::common::scram::{ScramProvider, Sha1, Sha256};
use sasl::common::{ChannelBinding, Identity, Password};
use sasl::secret::{Pbkdf2Sha1, Pbkdf2Sha256, Plain as PlainSecret};
use sasl::server::mechanisms::{Plain, Scram};
use sasl::server::{Mechanism, Provider, ProviderError, Validator, ValidatorError};

use super::wire::lock;

/// The same for all, so that what was derived from a password once serves all its users.
const SALT: &[u8] = b"megaphone stand-in";

/// Rounds of PBKDF2, as RFC 5802 asks for at least and most servers do.
const ITERATIONS: u32 = 4096;

/// Accounts by a pattern: user `a%` with N in place of `%` has the password's N.
#[derive(Debug)]
pub struct Accounts {
    user: String,
    password: String,
    derived: Mutex<HashMap<(&'static str, String), Vec<u8>>>,
}

impl Accounts {
    /// Accounts for every number in place of `%`.
    pub fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            derived: Mutex::default(),
        }
    }

    fn password(&self, user: &str) -> Option<String> {
        let Some((before, behind)) = self.user.split_once('%') else {
            return (user == self.user).then(|| self.password.clone());
        };
        let number = user.strip_prefix(before)?.strip_suffix(behind)?;
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| self.password.replacen('%', number, 1))
    }

    /// What SCRAM makes of a user's password. Takes some milliseconds the first time.
    fn derived<S: ScramProvider>(&self, identity: &Identity) -> Result<Vec<u8>, ProviderError> {
        let password = self
            .of(identity)
            .ok_or(ProviderError::AuthenticationFailed)?;
        let key = (S::name(), password);
        if let Some(derived) = lock(&self.derived).get(&key) {
            return Ok(derived.clone());
        }
        let derived = S::derive(&Password::Plain(key.1.clone()), SALT, ITERATIONS)?;
        lock(&self.derived).insert(key, derived.clone());
        Ok(derived)
    }

    fn of(&self, identity: &Identity) -> Option<String> {
        match identity {
            Identity::Username(user) => self.password(user),
            Identity::None => None,
        }
    }
}

/// One login as it goes on.
pub struct Exchange(Box<dyn Mechanism + Send>);

impl Exchange {
    /// The mechanism of this name, for a client that begins with `initial`. `None`: it is not
    /// offered.
    pub fn begin(accounts: &Arc<Accounts>, mechanism: &str, initial: &[u8]) -> Option<Self> {
        let check = Check(Arc::clone(accounts));
        Some(Self(match mechanism {
            "PLAIN" => Box::new(Plain::new(check)),
            "SCRAM-SHA-1" => Box::new(Scram::<Sha1, _>::new(check, binding(initial))),
            "SCRAM-SHA-256" => Box::new(Scram::<Sha256, _>::new(check, binding(initial))),
            _ => return None,
        }))
    }

    /// Takes what the client says.
    ///
    /// # Errors
    /// It is not right.
    pub fn respond(&mut self, said: &[u8]) -> Result<Answer, NotAuthorized> {
        use sasl::server::Response;
        match self.0.respond(said) {
            Ok(Response::Proceed(challenge)) => Ok(Answer::Challenge(challenge)),
            Ok(Response::Success(Identity::Username(user), last)) => {
                Ok(Answer::Success { user, last })
            }
            Ok(Response::Success(Identity::None, _)) | Err(_) => Err(NotAuthorized),
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchange({})", self.0.name())
    }
}

/// What the server says next.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The client is to answer this.
    Challenge(Vec<u8>),
    /// The client is that user, and is told this at last.
    Success {
        /// The user's name.
        user: String,
        /// SCRAM: the server's own proof.
        last: Vec<u8>,
    },
}

/// SASL's `not-authorized`.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAuthorized;

/// `sasl`'s server knows a client that has channel binding and thinks that this server has none
/// (`y`), and with `TlsUnique` one that has it none itself (`n`): the data to bind is none in both.
fn binding(initial: &[u8]) -> ChannelBinding {
    match initial.first() {
        Some(b'n') => ChannelBinding::TlsUnique(Vec::new()),
        _ => ChannelBinding::Unsupported,
    }
}

struct Check(Arc<Accounts>);

impl Validator<PlainSecret> for Check {
    fn validate(&self, identity: &Identity, given: &PlainSecret) -> Result<(), ValidatorError> {
        match self.0.of(identity) {
            Some(password) if password == given.0 => Ok(()),
            _ => Err(ValidatorError::AuthenticationFailed),
        }
    }
}

impl Provider<Pbkdf2Sha1> for Check {
    fn provide(&self, identity: &Identity) -> Result<Pbkdf2Sha1, ProviderError> {
        Ok(Pbkdf2Sha1 {
            salt: SALT.to_vec(),
            iterations: ITERATIONS,
            digest: self.0.derived::<Sha1>(identity)?,
        })
    }
}

impl Provider<Pbkdf2Sha256> for Check {
    fn provide(&self, identity: &Identity) -> Result<Pbkdf2Sha256, ProviderError> {
        Ok(Pbkdf2Sha256 {
            salt: SALT.to_vec(),
            iterations: ITERATIONS,
            digest: self.0.derived::<Sha256>(identity)?,
        })
    }
}

sasl::impl_validator_using_provider!(Check, Pbkdf2Sha1);
sasl::impl_validator_using_provider!(Check, Pbkdf2Sha256);

#[cfg(test)]
mod tests {
    use sasl::client::Mechanism as Client;
    use sasl::client::mechanisms::{Plain, Scram};
    use sasl::common::Credentials;

    use super::*;

    fn accounts() -> Arc<Accounts> {
        Arc::new(Accounts::new("user%", "secret%!"))
    }

    fn credentials(user: &str, password: &str, binding: ChannelBinding) -> Credentials {
        let credentials = Credentials::default().with_username(user);
        let credentials = credentials.with_password(password);
        credentials.with_channel_binding(binding)
    }

    /// Who the server says that the client is, or `None`.
    fn login(mut client: impl Client) -> Option<String> {
        let mut said = client.initial();
        let mut exchange = Exchange::begin(&accounts(), client.name(), &said).unwrap();
        loop {
            match exchange.respond(&said).ok()? {
                Answer::Challenge(challenge) => said = client.response(&challenge).unwrap(),
                Answer::Success { user, last } => {
                    client.success(&last).unwrap();
                    return Some(user);
                }
            }
        }
    }

    #[test]
    fn the_right_password_is_right_by_any_mechanism() {
        let given = || credentials("user7", "secret7!", ChannelBinding::None);
        let user7 = Some("user7".to_owned());
        assert_eq!(login(Plain::from_credentials(given()).unwrap()), user7);
        let scram = Scram::<Sha1>::from_credentials(given()).unwrap();
        assert_eq!(login(scram), user7);
        let scram = Scram::<Sha256>::from_credentials(given()).unwrap();
        assert_eq!(login(scram), user7);
        let given = credentials("user7", "secret7!", ChannelBinding::Unsupported);
        let scram = Scram::<Sha256>::from_credentials(given).unwrap();
        assert_eq!(login(scram), user7);
    }

    #[test]
    fn the_wrong_one_and_other_users_are_refused() {
        for (user, password) in [("user7", "secret8!"), ("userx", "secretx!"), ("x", "")] {
            let given = || credentials(user, password, ChannelBinding::None);
            assert_eq!(login(Plain::from_credentials(given()).unwrap()), None);
            let scram = Scram::<Sha256>::from_credentials(given()).unwrap();
            assert_eq!(login(scram), None);
        }
        for nonsense in [
            &b""[..],
            b"\0",
            b"n",
            b"n,,",
            b"n,,r=",
            b"p=tls-unique,,n=user7,r=x",
        ] {
            for name in ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"] {
                let mut exchange = Exchange::begin(&accounts(), name, nonsense).unwrap();
                assert_eq!(exchange.respond(nonsense), Err(NotAuthorized), "{name}");
            }
        }
        assert!(Exchange::begin(&accounts(), "EXTERNAL", b"").is_none());
    }

    #[test]
    fn a_pattern_stands_for_numbers_only() {
        let one = Accounts::new("romeo", "pa%");
        assert_eq!(one.password("romeo").as_deref(), Some("pa%"));
        assert_eq!(one.password("romeo1"), None);
        let around = Accounts::new("a%z", "p");
        assert_eq!(around.password("a12z").as_deref(), Some("p"));
        for other in ["az", "a1", "1z", "a1xz", "a", "z"] {
            assert_eq!(around.password(other), None, "{other}");
        }
    }
}
