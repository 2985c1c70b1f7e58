//! BOSH's two connections: whose turn it is.

use super::script::response;
use super::*;

fn ids(bytes: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(bytes);
    let ids = text.split("rid='").skip(1);
    ids.map(|rest| rest.split('\'').next().unwrap().parse().unwrap())
        .collect()
}

fn message(body: &str) -> Vec<u8> {
    response(&format!(
        "<body xmlns='x'><message type='chat'><body>{body}</body></message></body>"
    ))
}

/// Both connections are up, and the server has a request on each: the earlier on `First`.
fn busy() -> (Session, Output) {
    let (mut session, _) = Script::bosh().logged_in();
    let mut out = Output::default();
    session.send_message("x@y/z", "1", &mut out);
    assert_eq!(out.connect, [false, true]);
    assert!(out.writes[0].is_empty() && out.writes[1].is_empty());
    session.connected(Channel::Second, &mut out).unwrap();
    assert_eq!(ids(&out.writes[1]).len(), 1);
    (session, Output::default())
}

fn receive(
    session: &mut Session,
    channel: Channel,
    bytes: &[u8],
    out: &mut Output,
) -> Result<Vec<String>, Fault> {
    let mut told = Vec::new();
    let mut event = |event: Event<'_>| {
        if let Event::Message(body) = event {
            told.push(body.to_owned());
        }
    };
    session.received(channel, bytes, out, &mut event)?;
    Ok(told)
}

#[test]
fn answers_are_read_in_the_order_of_their_requests() {
    let (mut session, mut out) = busy();
    let early = message("2");
    let (start, end) = early.split_at(9);
    assert_eq!(
        receive(&mut session, Channel::Second, start, &mut out),
        Ok(vec![])
    );
    assert_eq!(
        receive(&mut session, Channel::Second, end, &mut out),
        Ok(vec![])
    );
    let told = receive(&mut session, Channel::First, &message("1"), &mut out);
    assert_eq!(told, Ok(vec!["1".into(), "2".into()]));
    // Both have been answered, and the server has one request again.
    assert_eq!(
        (ids(&out.writes[0]).len(), ids(&out.writes[1]).len()),
        (1, 0)
    );
}

#[test]
fn the_server_always_has_a_request_and_never_three() {
    assert!(!Script::bosh().logged_in().0.is_busy());
    let (mut session, mut out) = busy();
    assert!(session.is_busy());
    for body in ["2", "3"] {
        session.send_message("x@y/z", body, &mut out);
    }
    assert!(out.writes[0].is_empty() && out.writes[1].is_empty());
    receive(&mut session, Channel::First, &response("<body/>"), &mut out).unwrap();
    let said = String::from_utf8(std::mem::take(&mut out.writes[0])).unwrap();
    assert_eq!(said.matches("<message").count(), 2, "{said}");
    receive(&mut session, Channel::Second, &message("x"), &mut out).unwrap();
    assert!(
        out.writes[1].is_empty(),
        "the server has the other request still"
    );
    let told = receive(&mut session, Channel::First, &message("y"), &mut out);
    assert_eq!(told, Ok(vec!["y".into()]));
    assert_eq!(ids(&out.writes[0]).len(), 1);
}

#[test]
fn a_line_that_the_server_ends_between_requests_is_connected_when_it_is_needed() {
    let (mut session, mut out) = busy();
    receive(&mut session, Channel::First, &response("<body/>"), &mut out).unwrap();
    assert_eq!(session.closed(Channel::First, &mut out), Ok(()));
    assert_eq!(out.connect, [false, false]);
    session.send_message("x@y/z", "2", &mut out);
    assert_eq!(out.connect, [true, false]);
    session.connected(Channel::First, &mut out).unwrap();
    assert_eq!(ids(&out.writes[0]).len(), 1);
    assert_eq!(
        session.closed(Channel::Second, &mut out),
        Err(Fault::Closed)
    );
}

#[test]
fn a_server_that_keeps_no_connection_is_followed() {
    let (mut session, mut out) = Script::bosh().logged_in();
    out = Output {
        writes: [Vec::new(), Vec::new()],
        ..out
    };
    let last = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 7\r\n\r\n<body/>";
    receive(&mut session, Channel::First, last.as_bytes(), &mut out).unwrap();
    assert_eq!(out.connect, [true, false]);
    session.connected(Channel::First, &mut out).unwrap();
    assert_eq!(ids(&out.writes[0]).len(), 1);
}

#[test]
fn an_answer_that_waits_survives_its_connection() {
    let (mut session, mut out) = busy();
    receive(&mut session, Channel::Second, &message("2"), &mut out).unwrap();
    assert_eq!(session.closed(Channel::Second, &mut out), Ok(()));
    let told = receive(&mut session, Channel::First, &message("1"), &mut out);
    assert_eq!(told, Ok(vec!["1".into(), "2".into()]));
    assert_eq!(ids(&out.writes[0]).len(), 1);
}
