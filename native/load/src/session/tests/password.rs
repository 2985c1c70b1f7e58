//! A server that knows a password.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sasl::common::scram::{Sha1, Sha256};
use sasl::common::{ChannelBinding, Identity};
use sasl::secret::{Pbkdf2Sha1, Pbkdf2Sha256, Plain as PlainSecret};
use sasl::server::mechanisms::{Plain, Scram};
use sasl::server::{Mechanism, Provider, ProviderError, Response, Validator, ValidatorError};

use super::script::plan;
use super::*;
use crate::account::Mechanism as Sasl;

const HEADER: &str = "<stream:stream id='1' xmlns:stream='s'>";
const DENIED: &str = "<failure><text>no</text><not-authorized/></failure>";

/// Who is expected.
struct Known {
    user: &'static str,
    password: &'static str,
}

impl Known {
    fn check(&self, identity: &Identity) -> Result<(), ProviderError> {
        match identity {
            Identity::Username(user) if user == self.user => Ok(()),
            _ => Err(ProviderError::AuthenticationFailed),
        }
    }
}

impl Validator<PlainSecret> for Known {
    fn validate(&self, identity: &Identity, given: &PlainSecret) -> Result<(), ValidatorError> {
        self.check(identity)?;
        match given.0 == self.password {
            true => Ok(()),
            false => Err(ValidatorError::AuthenticationFailed),
        }
    }
}

impl Provider<Pbkdf2Sha1> for Known {
    fn provide(&self, identity: &Identity) -> Result<Pbkdf2Sha1, ProviderError> {
        self.check(identity)?;
        Ok(Pbkdf2Sha1::derive(self.password, b"salt", 2)?)
    }
}

impl Provider<Pbkdf2Sha256> for Known {
    fn provide(&self, identity: &Identity) -> Result<Pbkdf2Sha256, ProviderError> {
        self.check(identity)?;
        Ok(Pbkdf2Sha256::derive(self.password, b"salt", 2)?)
    }
}

sasl::impl_validator_using_provider!(Known, Pbkdf2Sha1);
sasl::impl_validator_using_provider!(Known, Pbkdf2Sha256);

/// A server's side of a mechanism that it offers. To this crate, a client without channel
/// binding is one that binds nothing.
fn server(offer: &str, known: Known) -> Box<dyn Mechanism> {
    let binding = ChannelBinding::TlsUnique(Vec::new());
    match offer {
        "PLAIN" => Box::new(Plain::new(known)),
        "SCRAM-SHA-1" => Box::new(Scram::<Sha1, _>::new(known, binding)),
        _ => Box::new(Scram::<Sha256, _>::new(known, binding)),
    }
}

/// Has user 7 log in where this mechanism is offered, and this is the user and the password.
/// Returns when the server believes the user, and the user the server.
fn authenticate(
    accounts: Accounts,
    offer: &str,
    user: &'static str,
    password: &'static str,
    server_proves_itself: bool,
) -> Result<(), Fault> {
    let mut session = Session::new(&plan(Transport::C2s, accounts), 7);
    let mut server = server(offer, Known { user, password });
    let mut out = Output::default();
    session.connected(Channel::First, &mut out)?;
    let mut next = format!(
        "{HEADER}<stream:features><mechanisms><mechanism>{offer}</mechanism></mechanisms></stream:features>"
    );
    loop {
        out.writes[0].clear();
        session.received(Channel::First, next.as_bytes(), &mut out, &mut |_| ())?;
        let said = String::from_utf8(out.writes[0].clone()).unwrap();
        if said.starts_with("<?xml") {
            return Ok(());
        }
        let (tag, rest) = said.split_once('>').unwrap();
        assert!(tag.starts_with("<response") || tag.contains(&format!("mechanism='{offer}'")));
        let said = BASE64.decode(rest.split_once('<').unwrap().0).unwrap();
        next = match server.respond(&said) {
            Ok(Response::Proceed(data)) => {
                format!("<challenge>{}</challenge>", BASE64.encode(data))
            }
            Ok(Response::Success(_, data)) if server_proves_itself => {
                format!("<success>{}</success>", BASE64.encode(data))
            }
            Ok(Response::Success(..)) => "<success/>".into(),
            Err(_) => DENIED.into(),
        };
    }
}

fn accounts(password: &str, mechanism: Sasl) -> Accounts {
    Accounts::Pattern {
        user: "user%%%".into(),
        password: password.into(),
        mechanism,
    }
}

#[test]
fn passwords_are_proved() {
    for (mechanism, offer) in [
        (Sasl::Plain, "PLAIN"),
        (Sasl::ScramSha1, "SCRAM-SHA-1"),
        (Sasl::ScramSha256, "SCRAM-SHA-256"),
        (Sasl::Best, "PLAIN"),
        (Sasl::Best, "SCRAM-SHA-1"),
        (Sasl::Best, "SCRAM-SHA-256"),
    ] {
        let with = |password: &str, user| {
            authenticate(accounts(password, mechanism), offer, user, "secret7", true)
        };
        let denied = Err(Fault::Authentication("not-authorized".into()));
        assert_eq!(with("secret%", "user007"), Ok(()));
        assert_eq!(with("wrong%", "user007"), denied);
        assert_eq!(with("secret%", "user7"), denied);
    }
}

#[test]
fn a_server_that_does_not_know_the_password_is_not_believed() {
    let accounts = accounts("secret%", Sasl::Best);
    let result = authenticate(accounts, "SCRAM-SHA-1", "user007", "secret7", false);
    assert!(
        matches!(result, Err(Fault::Authentication(_))),
        "{result:?}"
    );
}
