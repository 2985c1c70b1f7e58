//! From a stream's first features to a bound resource: RFC 6120's steps, whatever carries them.
//!
//! ```text
//! Features ─starttls─► StartTls ─proceed─► Features        (xmpp:// with STARTTLS)
//!    │ mechanisms
//!    ▼
//!  Sasl ─challenge─► Sasl ─success─► Resources ─bind─► Bind ─► Session (where it is asked for) ─► done
//! ```

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sasl::client::Mechanism as Sasl;
use sasl::client::mechanisms::{Anonymous, Plain, Scram};
use sasl::common::scram::{Sha1, Sha256};
use sasl::common::{ChannelBinding, Credentials};

use super::xml::Element;
use super::{Fault, Plan};
use crate::account::{Accounts, Mechanism};
use crate::target::Tls;

/// Where a login is. It is dropped when it is done.
pub(super) struct Login {
    step: Step,
    in_tls: bool,
    sasl: Option<Box<dyn Sasl + Send>>,
    session_wanted: bool,
    jid: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Waits for the features of a stream that nobody has authenticated on.
    Features,
    /// Waits for `<proceed/>`.
    StartTls,
    /// Waits for a challenge, or for the end.
    Sasl,
    /// Waits for the features of the stream after that.
    Resources,
    /// Waits for the answer to bind.
    Bind,
    /// Waits for the answer to session.
    Session,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing; with what came, neither.
    Wait,
    /// This stanza is to be sent.
    Say(String),
    /// TLS begins, and a new stream in it.
    StartTls,
    /// A new stream begins.
    Restart,
    /// This is the full JID.
    Done(Box<str>),
}

impl Login {
    pub(super) fn new() -> Self {
        Self {
            step: Step::Features,
            in_tls: false,
            sasl: None,
            session_wanted: false,
            jid: Box::default(),
        }
    }

    /// A stanza came. `namespace` is what a stanza of one's own must name, if anything.
    pub(super) fn take(
        &mut self,
        plan: &Plan,
        user: u32,
        namespace: &str,
        stanza: &Element<'_>,
    ) -> Result<Next, Fault> {
        match (self.step, stanza.name()) {
            (Step::Features, "features") => self.features(plan, user, stanza),
            (Step::StartTls, "proceed") => {
                self.step = Step::Features;
                self.in_tls = true;
                Ok(Next::StartTls)
            }
            (Step::StartTls, "failure") => Err(Fault::Protocol("STARTTLS failed")),
            (Step::Sasl, "challenge") => self.challenge(stanza),
            (Step::Sasl, "success") => self.success(plan, stanza),
            (Step::Sasl, "failure") => Err(Fault::Authentication(stanza.condition())),
            (Step::Resources, "features") => self.resources(namespace, stanza),
            (Step::Bind, "iq") => self.bound(namespace, stanza),
            (Step::Session, "iq") => self.session(stanza),
            (Step::Bind | Step::Session, _) => Ok(Next::Wait),
            _ => Err(Fault::Protocol("not what a login expects here")),
        }
    }

    fn features(&mut self, plan: &Plan, user: u32, features: &Element<'_>) -> Result<Next, Fault> {
        if plan.target.tls == Tls::Starttls && !self.in_tls {
            if features.child("starttls").is_none() {
                return Err(Fault::Protocol("the server offers no STARTTLS"));
            }
            self.step = Step::StartTls;
            let starttls = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
            return Ok(Next::Say(starttls.into()));
        }
        let Some(mechanisms) = features.child("mechanisms") else {
            return Err(Fault::Protocol(match features.child("starttls") {
                Some(_) => "the server wants STARTTLS",
                None => "the server offers no SASL mechanisms",
            }));
        };
        let offered: Vec<_> = mechanisms
            .children()
            .filter_map(|mechanism| mechanism.text().map(|text| text.trim().to_owned()))
            .collect();
        let mut sasl = choose(&plan.accounts, user, &offered)?;
        let initial = match sasl.initial() {
            initial if initial.is_empty() => String::new(),
            initial => BASE64.encode(initial),
        };
        let auth = format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{}'>{initial}</auth>",
            sasl.name()
        );
        self.sasl = Some(sasl);
        self.step = Step::Sasl;
        Ok(Next::Say(auth))
    }

    fn challenge(&mut self, stanza: &Element<'_>) -> Result<Next, Fault> {
        let challenge = decode(stanza)?;
        let response = match &mut self.sasl {
            Some(sasl) => sasl
                .response(&challenge)
                .map_err(|error| sasl_fault(&error))?,
            None => Vec::new(),
        };
        Ok(Next::Say(format!(
            "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{}</response>",
            BASE64.encode(response)
        )))
    }

    fn success(&mut self, plan: &Plan, stanza: &Element<'_>) -> Result<Next, Fault> {
        let proof = decode(stanza)?;
        // Only SCRAM's server proves itself here; the others say nothing that could be checked.
        if let (Some(mut sasl), Accounts::Pattern { .. }) = (self.sasl.take(), &plan.accounts)
            && sasl.name().starts_with("SCRAM")
        {
            sasl.success(&proof).map_err(|error| sasl_fault(&error))?;
        }
        self.step = Step::Resources;
        Ok(Next::Restart)
    }

    fn resources(&mut self, namespace: &str, features: &Element<'_>) -> Result<Next, Fault> {
        if features.child("bind").is_none() {
            return Err(Fault::Protocol("the server offers no resource binding"));
        }
        self.session_wanted = features
            .child("session")
            .is_some_and(|session| session.child("optional").is_none());
        self.step = Step::Bind;
        Ok(Next::Say(format!(
            "<iq{namespace} type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
        )))
    }

    fn bound(&mut self, namespace: &str, iq: &Element<'_>) -> Result<Next, Fault> {
        if !iq.has("id", "bind") {
            return Ok(Next::Wait);
        }
        refused(iq)?;
        let jid = iq.child("bind").and_then(|bind| bind.child("jid"));
        let jid = jid.and_then(|jid| jid.text().map(|text| text.trim().to_owned()));
        self.jid = jid
            .filter(|jid| jid.contains('/'))
            .ok_or(Fault::Protocol("bound to no full JID"))?
            .into();
        if !self.session_wanted {
            return Ok(Next::Done(std::mem::take(&mut self.jid)));
        }
        self.step = Step::Session;
        Ok(Next::Say(format!(
            "<iq{namespace} type='set' id='session'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>"
        )))
    }

    fn session(&mut self, iq: &Element<'_>) -> Result<Next, Fault> {
        if !iq.has("id", "session") {
            return Ok(Next::Wait);
        }
        refused(iq)?;
        Ok(Next::Done(std::mem::take(&mut self.jid)))
    }
}

/// The mechanism that the plan says, if the server offers it.
fn choose(
    accounts: &Accounts,
    user: u32,
    offered: &[String],
) -> Result<Box<dyn Sasl + Send>, Fault> {
    let offers = |name: &str| offered.iter().any(|offer| offer == name);
    let not_offered = |name: &str| Fault::Authentication(format!("{name} is not offered"));
    let (Accounts::Pattern { mechanism, .. }, Some((name, password))) =
        (accounts, accounts.credentials(user))
    else {
        return match offers("ANONYMOUS") {
            true => Ok(Box::new(Anonymous::new())),
            false => Err(not_offered("ANONYMOUS")),
        };
    };
    let mechanism = match mechanism {
        Mechanism::Best => [
            Mechanism::ScramSha256,
            Mechanism::ScramSha1,
            Mechanism::Plain,
        ]
        .into_iter()
        .find(|mechanism| offers(mechanism.name()))
        .ok_or_else(|| not_offered("SCRAM-SHA-256, SCRAM-SHA-1 or PLAIN"))?,
        one if offers(one.name()) => *one,
        other => return Err(not_offered(other.name())),
    };
    // `Unsupported` would tell a server that does channel binding of a man in the middle.
    let credentials = Credentials::default()
        .with_username(name)
        .with_password(password)
        .with_channel_binding(ChannelBinding::None);
    let sasl: Result<Box<dyn Sasl + Send>, _> = match mechanism {
        Mechanism::Plain | Mechanism::Best => {
            Plain::from_credentials(credentials).map(|sasl| Box::new(sasl) as _)
        }
        Mechanism::ScramSha1 => {
            Scram::<Sha1>::from_credentials(credentials).map(|sasl| Box::new(sasl) as _)
        }
        Mechanism::ScramSha256 => {
            Scram::<Sha256>::from_credentials(credentials).map(|sasl| Box::new(sasl) as _)
        }
    };
    sasl.map_err(|error| sasl_fault(&error))
}

/// The bytes in a challenge or a success.
fn decode(stanza: &Element<'_>) -> Result<Vec<u8>, Fault> {
    let text = stanza.text().unwrap_or_default();
    // `=` is how SASL in XMPP writes an empty one.
    match text.trim() {
        "" | "=" => Ok(Vec::new()),
        text => BASE64
            .decode(text)
            .map_err(|_| Fault::Protocol("not Base64 in SASL")),
    }
}

fn sasl_fault(error: &sasl::client::MechanismError) -> Fault {
    Fault::Authentication(error.to_string())
}

/// An answer that is an error.
fn refused(iq: &Element<'_>) -> Result<(), Fault> {
    if !iq.has("type", "error") {
        return Ok(());
    }
    let condition = iq.child("error").map(|error| error.condition());
    Err(Fault::Refused(
        condition.unwrap_or_else(|| "undefined".into()),
    ))
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}
