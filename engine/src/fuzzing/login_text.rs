//! Any text in any number of login requests, against a target with and without CHAP: a response or
//! a refusal, and no way in without the secret.
use std::rc::Rc;

use crate::iscsi::login::{
    CHALLENGE_BYTES, Chap, Credentials, Entropy, IscsiName, Login, Parameters, Secret, SessionKind,
    Target,
};
use crate::iscsi::pdu::{InitiatorSessionId, LoginRequest, Stage, Tag};
use crate::iscsi::sequence::Serial;
use crate::iscsi::text;
use bytes::Bytes;

fn target(with_chap: bool) -> Target {
    let credentials = |name: &str, secret: &[u8]| Credentials {
        name: name.into(),
        secret: Secret::new(secret),
    };
    Target {
        name: IscsiName::parse("iqn.2026-01.test:disk").expect("a name"),
        alias: "disk".into(),
        address: "127.0.0.1:3260".into(),
        chap: with_chap.then(|| Chap {
            initiator: credentials("host", b"a secret of 16 b"),
            target: Some(credentials("disk", b"another secret!!")),
        }),
    }
}

fn stage(bits: u8) -> Stage {
    match bits & 3 {
        0 => Stage::Security,
        3 => Stage::FullFeature,
        _ => Stage::Operational,
    }
}

fn request(flags: u8, text: &[u8]) -> LoginRequest {
    let continues = flags & 0x40 != 0;
    LoginRequest {
        tag: Tag(1),
        transit: (flags & 0x80 != 0 && !continues).then(|| stage(flags)),
        continues,
        stage: stage(flags >> 2),
        version_min: 0,
        isid: InitiatorSessionId([0x80, 0, 0, 0, 0, 1]),
        tsih: 0,
        connection: 0,
        command: Serial::from_raw(1),
        text: Bytes::copy_from_slice(text),
    }
}

fn read_text(bytes: &[u8]) {
    if let Ok(pairs) = text::parse(bytes) {
        let mut answer = text::Answer::new();
        let mut parameters = Parameters::default();
        for pair in &pairs {
            answer.push(&pair.key, &pair.value);
            let _reply = parameters.negotiate(&pair.key, &pair.value);
            let _number = text::parse_number(&pair.value);
            if let Some(binary) = text::parse_binary(&pair.value)
                && !binary.is_empty()
            {
                let written = text::hexadecimal(&binary);
                assert_eq!(text::parse_binary(&written), Some(binary));
            }
        }
        let all = answer.len();
        assert_eq!(text::parse(&answer.take(all)), Ok(pairs));
    }
}

/// Runs one input.
pub(super) fn run(data: &[u8]) {
    let Some((&first, mut rest)) = data.split_first() else {
        return;
    };
    read_text(rest);
    let with_chap = first & 1 != 0;
    let entropy = Entropy {
        identifier: 7,
        challenge: [3; CHALLENGE_BYTES],
    };
    let mut login = Login::new(Rc::new(target(with_chap)), entropy);
    while let [flags, low, high, after @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (text, after) = after.split_at(length);
        rest = after;
        match login.step(&request(*flags, text)) {
            Ok(step) => {
                if let Some(established) = step.established {
                    let proven = matches!(established.kind, SessionKind::Discovery);
                    assert!(proven || !with_chap, "logged in without the secret");
                    break;
                }
            }
            Err(_) => break,
        }
    }
}
