use super::support::{Client, StandIn, between};

/// A session and its two connections.
struct Bosh {
    channels: [Client; 2],
    sid: String,
    rid: u64,
}

fn post(client: &mut Client, attributes: &str, inner: &str) {
    let body = format!(
        "<body {attributes} xmlns='http://jabber.org/protocol/httpbind' \
         xmlns:xmpp='urn:xmpp:xbosh'>{inner}</body>"
    );
    client.say(&format!(
        "POST /bosh HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
}

impl Bosh {
    fn begin(stand_in: &StandIn, wait: u32) -> Self {
        let mut channels = [(); 2].map(|()| Client::connect(stand_in.address));
        let attributes = format!(
            "rid='1000' to='example.org' wait='{wait}' hold='1' ver='1.6' xmpp:version='1.0'"
        );
        post(&mut channels[0], &attributes, "");
        let created = channels[0].hear_http();
        assert!(
            created.contains("<mechanism>ANONYMOUS</mechanism>"),
            "{created}"
        );
        assert!(created.contains("xmlns:stream='http://etherx.jabber.org/streams'"));
        Self {
            channels,
            sid: between(&created, "sid='", "'").to_owned(),
            rid: 1000,
        }
    }

    fn login(stand_in: &StandIn, wait: u32) -> (Self, String) {
        let mut bosh = Self::begin(stand_in, wait);
        let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>";
        assert!(bosh.ask(auth).contains("<success"));
        bosh.post(0, "xmpp:restart='true'", "");
        assert!(bosh.channels[0].hear_http().contains("<bind"));
        let bind = "<iq xmlns='jabber:client' type='set' id='1'>\
                    <bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
        let result = bosh.ask(bind);
        assert!(result.contains("<iq xmlns='jabber:client'"));
        let jid = between(&result, "<jid>", "</jid>").to_owned();
        (bosh, jid)
    }

    fn post(&mut self, channel: usize, attributes: &str, inner: &str) {
        self.rid += 1;
        self.post_as(self.rid, channel, attributes, inner);
    }

    fn post_as(&mut self, rid: u64, channel: usize, attributes: &str, inner: &str) {
        let attributes = format!("{attributes} rid='{rid}' sid='{}'", self.sid);
        post(&mut self.channels[channel], &attributes, inner);
    }

    fn ask(&mut self, inner: &str) -> String {
        self.post(0, "", inner);
        self.channels[0].hear_http()
    }
}

fn message(to: &str, text: &str) -> String {
    format!("<message xmlns='jabber:client' to='{to}'><body>{text}</body></message>")
}

const EMPTY: &str = "<body xmlns='http://jabber.org/protocol/httpbind'></body>";

#[test]
fn a_held_request_is_answered_by_a_message_and_released_by_the_next_request() {
    let stand_in = StandIn::start("bosh", &[]);
    let ((mut romeo, romeos), (mut juliet, juliets)) =
        (Bosh::login(&stand_in, 60), Bosh::login(&stand_in, 60));
    juliet.post(0, "", "");
    romeo.post(0, "", "");
    // The second request carries a message, releases the first and is held itself.
    romeo.post(1, "", &message(&juliets, "one"));
    assert_eq!(romeo.channels[0].hear_http(), EMPTY);
    let came = juliet.channels[0].hear_http();
    let stanza = format!("<message xmlns='jabber:client' from='{romeos}' to='{juliets}'>");
    assert!(
        came.contains(&stanza) && came.contains("<body>one</body>"),
        "{came}"
    );
    // What comes while none is held waits for the next.
    romeo.post(
        0,
        "",
        &(message(&juliets, "two") + &message(&juliets, "three")),
    );
    assert_eq!(romeo.channels[1].hear_http(), EMPTY);
    while stand_in.report().delivered < 3 {
        std::thread::yield_now();
    }
    juliet.post(0, "", "");
    let came = juliet.channels[0].hear_http();
    assert!(came.find("two").unwrap() < came.find("three").unwrap());
    assert_eq!(stand_in.report().delivered, 3);
}

#[test]
fn requests_are_taken_in_order_whatever_order_they_come_in() {
    let stand_in = StandIn::start("bosh", &[]);
    let (mut romeo, romeos) = Bosh::login(&stand_in, 60);
    let rid = romeo.rid;
    romeo.post_as(rid + 2, 1, "", &message(&romeos, "second"));
    romeo.post_as(rid + 1, 0, "", &message(&romeos, "first"));
    assert!(romeo.channels[0].hear_http().contains("first"));
    assert!(romeo.channels[1].hear_http().contains("second"));
    romeo.post_as(rid + 9, 0, "", "");
    assert!(romeo.channels[0].hear_http().contains("item-not-found"));
}

#[test]
fn a_request_is_held_no_longer_than_wait() {
    let stand_in = StandIn::start("bosh", &[]);
    let (mut romeo, _) = Bosh::login(&stand_in, 1);
    assert_eq!(romeo.ask(""), EMPTY);
    assert_eq!(romeo.ask(""), EMPTY);
}

#[test]
fn a_session_ends_when_it_is_terminated() {
    let stand_in = StandIn::start("bosh", &[]);
    let ((mut romeo, romeos), (mut juliet, _)) =
        (Bosh::login(&stand_in, 60), Bosh::login(&stand_in, 60));
    romeo.post(0, "", "");
    romeo.post(
        1,
        "type='terminate'",
        "<presence xmlns='jabber:client' type='unavailable'/>",
    );
    assert_eq!(romeo.channels[0].hear_http(), EMPTY);
    assert!(romeo.channels[1].hear_http().contains("type='terminate'"));
    assert!(romeo.ask("").contains("item-not-found"));
    let bounced = juliet.ask(&message(&romeos, "x"));
    assert!(bounced.contains("<service-unavailable"), "{bounced}");
}

#[test]
fn what_is_no_request_of_a_session_is_refused() {
    let stand_in = StandIn::start("bosh", &[]);
    let mut client = Client::connect(stand_in.address);
    post(&mut client, "rid='1' sid='nobody'", "");
    assert!(client.hear_http().contains("item-not-found"));
    client.say("GET /bosh HTTP/1.1\r\n\r\n");
    assert!(client.hear_end().starts_with("HTTP/1.1 400 "));
}

#[test]
fn refusals_and_faults_are_the_same_here() {
    let stand_in = StandIn::start("bosh", &["--refuse=1"]);
    let mut bosh = Bosh::begin(&stand_in, 60);
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>";
    assert!(bosh.ask(auth).contains("<failure"));
    assert_eq!(stand_in.report().refused.values().sum::<u64>(), 1);
}
