use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const INITIATOR: &str = "InitiatorName=iqn.2026-01.test:host\0";
const NAMES: &str = "InitiatorName=iqn.2026-01.test:host\0TargetName=iqn.2026-01.test:disk\0";

fn target(chap: Option<Chap>) -> Rc<Target> {
    Rc::new(Target {
        name: IscsiName::parse("iqn.2026-01.test:disk").unwrap(),
        alias: String::new(),
        address: "192.0.2.1:3260".into(),
        chap,
    })
}

fn entropy() -> Entropy {
    Entropy {
        identifier: 77,
        challenge: [5; CHALLENGE_BYTES],
    }
}

fn open_login() -> Login {
    Login::new(target(None), entropy())
}

fn secrets(mutual: bool) -> Chap {
    let credentials = |name: &str, secret: &str| Credentials {
        name: name.into(),
        secret: Secret::new(secret),
    };
    Chap {
        initiator: credentials("host", "twelve bytes"),
        target: mutual.then(|| credentials("disk", "other twelve")),
    }
}

fn request(stage: Stage, transit: Option<Stage>, text: &str) -> LoginRequest {
    LoginRequest {
        tag: Tag(1),
        transit,
        continues: false,
        stage,
        version_min: 0,
        isid: InitiatorSessionId([0x80, 0, 0, 0, 0, 1]),
        tsih: 0,
        connection: 0,
        command: Serial::from_raw(100),
        text: Bytes::copy_from_slice(text.as_bytes()),
    }
}

fn operational(text: &str) -> LoginRequest {
    request(Stage::Operational, Some(Stage::FullFeature), text)
}

fn answers(step: &Step) -> Vec<(String, String)> {
    let pairs = text::parse(&step.response.text).unwrap();
    pairs
        .into_iter()
        .map(|pair| (pair.key, pair.value))
        .collect()
}

fn answer(step: &Step, key: &str) -> Option<String> {
    answers(step)
        .into_iter()
        .find(|(found, _)| found == key)
        .map(|(_, value)| value)
}

#[test]
fn a_login_in_one_request_is_established() {
    let text = format!("{NAMES}HeaderDigest=CRC32C,None\0MaxBurstLength=65536\0Strange=1\0");
    let step = open_login().step(&operational(&text)).unwrap();
    assert_eq!(answer(&step, "HeaderDigest").as_deref(), Some("CRC32C"));
    assert_eq!(answer(&step, "TargetPortalGroupTag").as_deref(), Some("1"));
    assert_eq!(answer(&step, "Strange").as_deref(), Some("NotUnderstood"));
    assert_eq!(answer(&step, "InitiatorName"), None);
    let established = step.established.unwrap();
    assert_eq!(established.kind, SessionKind::Normal);
    assert!(established.parameters.digests.header && !established.parameters.digests.data);
    assert_eq!(established.parameters.rules.burst_bytes, 65_536);
    assert_eq!(established.command, Serial::from_raw(100));
}

#[test]
fn security_comes_before_operational_and_never_again() {
    let mut login = open_login();
    let first = format!("{NAMES}AuthMethod=CHAP,None\0");
    let step = login
        .step(&request(Stage::Security, Some(Stage::Operational), &first))
        .unwrap();
    assert_eq!(answer(&step, "AuthMethod").as_deref(), Some("None"));
    assert_eq!(step.response.transit, Some(Stage::Operational));
    assert!(step.established.is_none());
    let back = login.step(&request(Stage::Security, None, ""));
    assert_eq!(back, Err(Refusal::InitiatorError));
}

#[test]
fn what_is_missing_or_wrong_is_refused_with_its_reason() {
    let wrong_target = format!("{INITIATOR}TargetName=iqn.2026-01.test:other\0");
    let wrong_type = format!("{NAMES}SessionType=Boot\0");
    let twice = format!("{NAMES}HeaderDigest=None\0HeaderDigest=None\0");
    let table = [
        ("", Refusal::MissingParameter),
        (
            "TargetName=iqn.2026-01.test:disk\0",
            Refusal::MissingParameter,
        ),
        (INITIATOR, Refusal::MissingParameter),
        (wrong_target.as_str(), Refusal::NotFound),
        (wrong_type.as_str(), Refusal::SessionType),
        (twice.as_str(), Refusal::InitiatorError),
        ("InitiatorName=somebody\0", Refusal::InitiatorError),
        ("nonsense\0", Refusal::InitiatorError),
    ];
    for (text, refusal) in table {
        assert_eq!(
            open_login().step(&operational(text)),
            Err(refusal),
            "{text:?}"
        );
    }
    let newer = LoginRequest {
        version_min: 1,
        ..operational(NAMES)
    };
    assert_eq!(open_login().step(&newer), Err(Refusal::Version));
}

#[test]
fn a_key_may_not_come_again_in_a_later_request() {
    let mut login = open_login();
    let first = format!("{NAMES}MaxBurstLength=65536\0");
    login
        .step(&request(Stage::Operational, None, &first))
        .unwrap();
    let again = login.step(&operational("MaxBurstLength=1024\0"));
    assert_eq!(again, Err(Refusal::InitiatorError));
}

#[test]
fn what_names_the_login_may_not_change() {
    let changes: [fn(&mut LoginRequest); 5] = [
        |it| it.tag = Tag(2),
        |it| it.isid = InitiatorSessionId([1; 6]),
        |it| it.tsih = 9,
        |it| it.connection = 3,
        |it| it.command = Serial::from_raw(101),
    ];
    for change in changes {
        let mut login = open_login();
        login
            .step(&request(Stage::Operational, None, NAMES))
            .unwrap();
        let mut second = operational("");
        change(&mut second);
        assert_eq!(login.step(&second), Err(Refusal::InitiatorError));
    }
}

#[test]
fn text_over_several_requests_is_read_as_one() {
    let mut login = open_login();
    let (first, second) = NAMES.split_at(20);
    let part = LoginRequest {
        continues: true,
        ..request(Stage::Operational, None, first)
    };
    let step = login.step(&part).unwrap();
    assert!(step.response.text.is_empty() && step.response.transit.is_none());
    assert!(
        login
            .step(&operational(second))
            .unwrap()
            .established
            .is_some()
    );
}

#[test]
fn text_without_end_is_refused() {
    let mut login = open_login();
    let piece = "x".repeat(8192);
    let part = LoginRequest {
        continues: true,
        ..request(Stage::Operational, None, &piece)
    };
    let refused = (0..=limit::TEXT_BYTES / piece.len()).find_map(|_| login.step(&part).err());
    assert_eq!(refused, Some(Refusal::InitiatorError));
}

#[test]
fn a_login_that_goes_round_in_circles_is_refused() {
    let mut login = open_login();
    login
        .step(&request(Stage::Operational, None, NAMES))
        .unwrap();
    let idle = request(Stage::Operational, None, "");
    let refused = (0..limit::LOGIN_REQUESTS).find_map(|_| login.step(&idle).err());
    assert_eq!(refused, Some(Refusal::InitiatorError));
}

#[test]
fn a_long_answer_comes_in_pieces_and_holds_back_the_transition() {
    let mut login = open_login();
    let mut part = LoginRequest {
        continues: true,
        ..request(Stage::Operational, None, NAMES)
    };
    login.step(&part).unwrap();
    let keys: String = (0..400)
        .map(|n| format!("X-com.example.{n:03}=1\0"))
        .collect();
    for piece in keys.as_bytes().chunks(8000) {
        part.text = Bytes::copy_from_slice(piece);
        login.step(&part).unwrap();
    }
    let mut text = Vec::new();
    let mut step = login.step(&operational("")).unwrap();
    while step.response.continues {
        assert!(step.established.is_none() && step.response.transit.is_none());
        text.extend(step.response.text);
        step = login.step(&operational("")).unwrap();
    }
    assert!(step.established.is_some());
    text.extend(step.response.text);
    let understood = text::parse(&text).unwrap();
    let unknown = understood
        .iter()
        .filter(|pair| pair.value == "NotUnderstood");
    assert_eq!(unknown.count(), 400);
}

#[test]
fn discovery_needs_no_target_and_no_proof() {
    let mut login = Login::new(target(Some(secrets(false))), entropy());
    let text = format!("{INITIATOR}SessionType=Discovery\0");
    let step = login.step(&operational(&text)).unwrap();
    assert_eq!(step.established.unwrap().kind, SessionKind::Discovery);
}

/// Up to the target's challenge.
fn challenged(mutual: bool) -> Login {
    let mut login = Login::new(target(Some(secrets(mutual))), entropy());
    let first = format!("{NAMES}AuthMethod=CHAP,None\0");
    let step = login
        .step(&request(Stage::Security, Some(Stage::Operational), &first))
        .unwrap();
    assert_eq!(answer(&step, "AuthMethod").as_deref(), Some("CHAP"));
    assert_eq!(step.response.transit, None, "nothing is proven yet");
    let step = login
        .step(&request(Stage::Security, None, "CHAP_A=5\0"))
        .unwrap();
    assert_eq!(answer(&step, "CHAP_A").as_deref(), Some("5"));
    assert_eq!(answer(&step, "CHAP_I").as_deref(), Some("77"));
    assert_eq!(answer(&step, "CHAP_C"), Some(text::hexadecimal(&[5; 16])));
    login
}

fn proof(secret: &str, more: &str) -> LoginRequest {
    let proof = Algorithm::Md5.respond(77, &Secret::new(secret), &[5; 16]);
    let text = format!("CHAP_N=host\0CHAP_R={}\0{more}", text::hexadecimal(&proof));
    request(Stage::Security, Some(Stage::Operational), &text)
}

#[test]
fn the_right_secret_lets_in_and_the_wrong_one_does_not() {
    let step = challenged(false).step(&proof("twelve bytes", "")).unwrap();
    assert_eq!(step.response.transit, Some(Stage::Operational));
    let refused = challenged(false).step(&proof("twelve Bytes", ""));
    assert_eq!(refused, Err(Refusal::Authentication));
}

#[test]
fn the_target_proves_itself_when_asked() {
    let more = "CHAP_I=9\0CHAP_C=0x0102030405060708\0";
    let step = challenged(true).step(&proof("twelve bytes", more)).unwrap();
    let secret = Secret::new("other twelve");
    let expected = Algorithm::Md5.respond(9, &secret, &[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(answer(&step, "CHAP_N").as_deref(), Some("disk"));
    assert_eq!(answer(&step, "CHAP_R"), Some(text::hexadecimal(&expected)));
    let refused = challenged(false).step(&proof("twelve bytes", more));
    assert_eq!(
        refused,
        Err(Refusal::Authentication),
        "there is no secret to prove it with"
    );
}

#[test]
fn our_own_challenge_sent_back_is_refused() {
    let more = format!("CHAP_I=9\0CHAP_C={}\0", text::hexadecimal(&[5; 16]));
    let refused = challenged(true).step(&proof("twelve bytes", &more));
    assert_eq!(refused, Err(Refusal::Authentication));
}

#[test]
fn no_way_leads_past_a_demanded_proof() {
    let login = || Login::new(target(Some(secrets(false))), entropy());
    assert_eq!(
        login().step(&operational(NAMES)),
        Err(Refusal::Authentication)
    );
    let none = format!("{NAMES}AuthMethod=None\0");
    let step = login().step(&request(Stage::Security, Some(Stage::FullFeature), &none));
    assert_eq!(step, Err(Refusal::Authentication));
    let step = login()
        .step(&request(Stage::Security, Some(Stage::FullFeature), NAMES))
        .unwrap();
    assert!(step.established.is_none() && step.response.transit.is_none());
    let early = format!("{NAMES}CHAP_N=host\0CHAP_R=0x00\0");
    let step = login().step(&request(Stage::Security, Some(Stage::FullFeature), &early));
    assert_eq!(step, Err(Refusal::Authentication));
}

fn any_request() -> impl Strategy<Value = LoginRequest> {
    let stages = prop::sample::select(vec![Stage::Security, Stage::Operational]);
    let transit = prop::option::of(prop::sample::select(vec![
        Stage::Operational,
        Stage::FullFeature,
    ]));
    let pair = prop_oneof![
        Just(NAMES.to_owned()),
        Just("AuthMethod=CHAP,None\0".to_owned()),
        Just("CHAP_A=5\0".to_owned()),
        "(CHAP_[NRIC]|SessionType|MaxBurstLength|HeaderDigest|TargetName|[A-Z]{1,3})=[ -~]{0,20}\0",
        "[ -~]{0,10}\0?",
    ];
    let text = prop::collection::vec(pair, 0..4).prop_map(|pairs| pairs.concat());
    (stages, transit, text, any::<bool>(), 0..20_u8).prop_map(
        |(stage, transit, text, continues, odd)| LoginRequest {
            continues,
            version_min: u8::from(odd == 19),
            ..request(stage, transit, &text)
        },
    )
}

proptest! {
    #[test]
    fn no_sequence_of_requests_panics_or_gets_in_without_proof(
        requests in prop::collection::vec(any_request(), 1..8),
    ) {
        let mut login = Login::new(target(Some(secrets(true))), entropy());
        for request in requests {
            match login.step(&request) {
                // The proof is 128 bits; what is generated here never hits it.
                Ok(Step { established: Some(established), .. }) => {
                    prop_assert_eq!(established.kind, SessionKind::Discovery);
                }
                Ok(step) => prop_assert!(step.response.text.len() <= 8192),
                Err(_) => break,
            }
        }
    }
}
