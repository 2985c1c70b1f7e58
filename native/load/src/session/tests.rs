//! Sessions against servers that are written down.

mod faults;
mod password;
mod random;
mod script;
mod size;
mod turns;

use super::*;
use crate::account::Accounts;
use crate::target::Target;
use script::{Run, Script, plan};

const BODY: &str = "hello";

/// A login, what a server says unasked, and its goodbye, over each transport.
fn lives() -> Vec<Script> {
    let mut scripts = vec![Script::c2s(), Script::websocket(), Script::bosh()];
    scripts.push(Script::c2s_in_tls());
    for script in &mut scripts {
        let stanzas = [
            "<presence from='a@b/c' to='a@b/c'/>",
            "<message type='chat' from='x@y/z'><body>hello</body><x/></message>",
            "<iq type='get' id='p&apos;1' from='b'><ping xmlns='urn:xmpp:ping'/></iq>",
            "<iq type='set' id='s' from='a@b'><query xmlns='jabber:iq:roster'/></iq>",
            "<message type='error'><body>hello</body></message>",
            "<message type='chat'><body>\u{20ac} &lt;1&gt;</body></message>",
        ];
        script.say(&stanzas);
    }
    scripts
}

#[test]
fn a_whole_life_is_told_and_answered() {
    for script in lives() {
        let run = script.run(None);
        assert_eq!(run.fault, None, "{}", script.name);
        assert_eq!(
            run.events,
            [
                "in",
                "other",
                "hello",
                "other",
                "other",
                "other",
                "\u{20ac} <1>"
            ],
            "{}",
            script.name
        );
        let said = run.said();
        assert!(
            said.contains("type='result' id='p&apos;1' to='b'></iq>"),
            "{said}"
        );
        assert!(
            said.contains("type='error' id='s' to='a@b'><error"),
            "{said}"
        );
        assert_eq!(run.jid, "a@b/c");
    }
}

#[test]
fn wherever_the_bytes_are_cut_the_events_are_the_same() {
    for script in lives() {
        let whole = script.run(None);
        for cut in 1..script.len() {
            assert_eq!(script.run(Some(cut)), whole, "{} cut at {cut}", script.name);
        }
        assert_eq!(script.run_by_bytes(), whole, "{} byte by byte", script.name);
    }
}

#[test]
fn what_is_not_whole_alone_is_kept() {
    for script in lives() {
        let (mut session, mut out) = script.logged_in();
        let stanza = script.wrap("<message type='chat'><body>hello</body></message>");
        let (start, end) = stanza.split_at(stanza.len() / 2);
        let mut said = Vec::new();
        let mut receive = |session: &mut Session, bytes: &[u8]| {
            let mut told = |event: Event<'_>| said.push(format!("{event:?}"));
            session.received(Channel::First, bytes, &mut out, &mut told)
        };
        assert_eq!(receive(&mut session, start), Ok(()));
        assert_eq!(session.kept.len(), start.len());
        assert_eq!(receive(&mut session, end), Ok(()));
        assert_eq!(session.kept.capacity(), 0);
        assert_eq!(said, ["Message(\"hello\")"]);
    }
}

#[test]
fn messages_are_sent_and_goodbye_is_said() {
    for script in lives() {
        let (mut session, _) = script.logged_in();
        let mut out = Output::default();
        session.send_message("x@y/<'z'>", BODY, &mut out);
        if script.name == "bosh" {
            assert_eq!(out.connect, [false, true]);
            session.connected(Channel::Second, &mut out).unwrap();
        }
        let run = Run::of(&out, script.name);
        assert!(
            run.said().contains(
                " type='chat' to='x@y/&lt;&apos;z&apos;&gt;'><body>hello</body></message>"
            ),
            "{}",
            run.said()
        );
        let mut out = Output::default();
        session.leave(&mut out);
        assert!(!out.close, "{}", script.name);
        for (channel, bytes) in script.goodbye() {
            session
                .received(channel, &bytes, &mut out, &mut |_| ())
                .unwrap();
        }
        assert!(out.close, "{}", script.name);
        assert_eq!(session.closed(Channel::First, &mut out), Ok(()));
    }
}

#[test]
fn a_server_that_ends_while_its_user_leaves_is_no_fault() {
    for script in lives() {
        let (mut session, _) = script.logged_in();
        let mut out = Output::default();
        session.leave(&mut out);
        assert_eq!(session.closed(Channel::First, &mut out), Ok(()));
        assert!(out.close);
    }
}

#[test]
fn who_is_not_in_yet_leaves_at_once() {
    let plan = plan(Transport::C2s, Accounts::Anonymous);
    let mut session = Session::new(&plan, 1);
    let mut out = Output::default();
    session.leave(&mut out);
    assert!(out.close);
    let rest = session.received(Channel::First, b"<garbage", &mut out, &mut |_| ());
    assert_eq!(rest, Ok(()));
}

#[test]
fn a_websocket_message_may_come_in_parts_with_a_ping_between() {
    let (mut session, _) = Script::websocket().logged_in();
    let mut out = Output::default();
    let mut events = Vec::new();
    let bytes =
        b"\x01\x12<message type='cha\x89\x02hi\x00\x02t'\x80\x1f><body>hello</body> </message >";
    session
        .received(Channel::First, bytes, &mut out, &mut |event| {
            events.push(format!("{event:?}"));
        })
        .unwrap();
    assert_eq!(events, ["Message(\"hello\")"]);
    let [pong, _] = &out.writes;
    assert_eq!(pong[..2], [0x8a, 0x82]);
    assert_eq!([pong[6] ^ pong[2], pong[7] ^ pong[3]], *b"hi");
}
