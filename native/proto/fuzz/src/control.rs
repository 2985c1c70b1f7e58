//! Any bytes as a control message, as a handshake, and as what follows it.

use megaphone_proto::auth::Secret;
use megaphone_proto::control::Control;
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::handshake::{Handshake, Identity, Step};
use megaphone_proto::limits::{CONTROL_LINE_MAX, HEAD_LEN};
use megaphone_proto::link::{Link, LinkConfig, Resume, Role};

/// `data`: who listens and how many lines share a frame, the sizes of three pieces, and lines. Each
/// line is taken or refused, and one that is taken is written as a line that means the same. All of
/// them together are a stream that says the same however it is cut.
pub fn control(data: &[u8]) {
    let Some((&[who, sizes @ ..], lines)) = super::split::<4>(data) else {
        return;
    };
    let lines: Vec<_> = lines.split_inclusive(|byte| *byte == b'\n').collect();
    let mut stream = Vec::new();
    // A handshake's messages are alone in their frames, two at most; later ones need not be.
    let (first, rest) = lines.split_at(lines.len().min(2));
    for some in first
        .chunks(1)
        .chain(rest.chunks(1 + usize::from(who >> 5)))
    {
        put_frame(ConnectionId::CONTROL, &some.concat(), &mut stream);
    }
    for line in lines {
        if let Ok(Some(message)) = Control::parse(line.strip_suffix(b"\n").unwrap_or(line)) {
            there_and_back(&message);
        }
    }
    let whole = hear(who, [&stream[..]].into_iter());
    assert_eq!(whole, hear(who, super::pieces(&stream, &sizes)));
    assert_eq!(whole, hear(who, stream.chunks(1)));
}

fn there_and_back(message: &Control) {
    let frame = message.to_frame();
    let line = &frame[HEAD_LEN..frame.len() - 1];
    assert!(line.len() < CONTROL_LINE_MAX);
    let again = Control::parse(line).expect("what is written is what a peer must take");
    let again = again.expect("and knows");
    // A text that was cut at its limit is the same from then on.
    assert_eq!(again.to_frame(), frame);
}

fn config(who: u8) -> LinkConfig {
    let role = if who & 1 == 0 { Role::Node } else { Role::Edge };
    LinkConfig {
        allow_v1: who & 2 == 0,
        secret: (who & 4 != 0).then(|| Secret::new(b"sixteen and more bytes").unwrap()),
        resume_timeout: u32::from(who & 8),
        resume: (who & 16 != 0).then(|| Resume {
            link: "1".into(),
            token: "00".into(),
            received: 7,
        }),
        ..LinkConfig::new(role, "side", "0123456789abcdef0123456789abcdef")
    }
}

/// All that a stream brings about, as text.
fn hear<'a>(who: u8, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let (mut handshake, mut link) = (Some(Handshake::new(config(who))), None);
    let mut told = Vec::new();
    for piece in pieces {
        if let Err(error) = feed(&mut handshake, &mut link, piece, &mut told) {
            told.push(error);
            break;
        }
    }
    if let Some(link) = link {
        told.push(format!("{} {:?}", link.received(), link.end_of_input()));
    }
    told
}

fn feed(
    handshake: &mut Option<Handshake>,
    link: &mut Option<Link>,
    mut piece: &[u8],
    told: &mut Vec<String>,
) -> Result<(), String> {
    while let Some(greeting) = handshake {
        match greeting.next(&mut piece).map_err(|e| e.to_string())? {
            None => return Ok(()),
            Some(Step::Hello) => {
                let answer = greeting.answer(Identity {
                    link: "1".into(),
                    token: "00".repeat(16),
                    resumed: None,
                });
                told.push(answer.to_string());
            }
            Some(Step::Up { version }) => {
                told.push(format!("up {version} {:?}", greeting.auth()));
                *link = handshake.take().map(Handshake::finish);
            }
        }
    }
    let Some(link) = link else { return Ok(()) };
    while let Some(event) = link.next(&mut piece).map_err(|e| e.to_string())? {
        // A frame's content may come in several parts.
        if !matches!(event, megaphone_proto::Event::Content { .. }) {
            told.push(format!("{event:?}"));
        }
    }
    Ok(())
}
