//! The security stage: which method, and CHAP's two or three steps (RFC 7143 §12.1.3).

use super::chap::{Algorithm, Challenge, Credentials};
use super::target::Chap;
use super::{Entropy, Refusal, is_introduction};
use crate::iscsi::text::{Answer, Pair, hexadecimal, parse_binary, parse_number};

/// How far the proof has come.
///
/// ```text
/// NotDemanded    Demanded ─ AuthMethod=CHAP ─▶ Agreed ─ CHAP_A ─▶ Challenged ─ CHAP_N, CHAP_R ─▶ Proven
/// ```
#[derive(Debug)]
enum Proof {
    NotDemanded,
    Demanded,
    Agreed,
    Challenged(Challenge),
    Proven,
}

/// The state of the security stage.
#[derive(Debug)]
pub(super) struct Security {
    entropy: Entropy,
    proof: Proof,
}

impl Security {
    pub(super) fn new(entropy: Entropy) -> Self {
        Self {
            entropy,
            proof: Proof::NotDemanded,
        }
    }

    /// Once it is known what is being logged in to.
    pub(super) fn demand(&mut self, demanded: bool) {
        if demanded {
            self.proof = Proof::Demanded;
        }
    }

    /// Whether something is still to be proven before the stage may be left.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.proof, Proof::NotDemanded | Proof::Proven)
    }

    /// Deals with the stage's keys and returns the others.
    pub(super) fn settle<'a>(
        &mut self,
        chap: Option<&Chap>,
        pairs: &'a [Pair],
        answer: &mut Answer,
    ) -> Result<Vec<&'a Pair>, Refusal> {
        let value = |key: &str| {
            pairs
                .iter()
                .find(|pair| pair.key == key)
                .map(|pair| pair.value.as_str())
        };
        if let Some(methods) = value("AuthMethod") {
            self.choose_method(methods, answer)?;
        }
        if let Some(algorithms) = value("CHAP_A") {
            self.challenge(algorithms, answer)?;
        }
        let proof = Response {
            name: value("CHAP_N"),
            response: value("CHAP_R"),
            identifier: value("CHAP_I"),
            challenge: value("CHAP_C"),
        };
        if proof.is_any() {
            self.verify(chap.ok_or(Refusal::Authentication)?, &proof, answer)?;
        }
        let owned = |key: &str| key == "AuthMethod" || key.starts_with("CHAP_");
        Ok(pairs
            .iter()
            .filter(|pair| !owned(&pair.key) && !is_introduction(&pair.key))
            .collect())
    }

    fn choose_method(&mut self, methods: &str, answer: &mut Answer) -> Result<(), Refusal> {
        let offers = |method: &str| methods.split(',').any(|offered| offered == method);
        match self.proof {
            Proof::Demanded if offers("CHAP") => {
                self.proof = Proof::Agreed;
                answer.push("AuthMethod", "CHAP");
                Ok(())
            }
            Proof::NotDemanded if offers("None") => {
                answer.push("AuthMethod", "None");
                Ok(())
            }
            _ => Err(Refusal::Authentication),
        }
    }

    fn challenge(&mut self, algorithms: &str, answer: &mut Answer) -> Result<(), Refusal> {
        if !matches!(self.proof, Proof::Agreed) {
            return Err(Refusal::Authentication);
        }
        let algorithm = Algorithm::choose(algorithms).ok_or(Refusal::Authentication)?;
        answer.push("CHAP_A", algorithm.number());
        answer.push("CHAP_I", &self.entropy.identifier.to_string());
        answer.push("CHAP_C", &hexadecimal(&self.entropy.challenge));
        self.proof = Proof::Challenged(Challenge {
            algorithm,
            identifier: self.entropy.identifier,
            bytes: self.entropy.challenge,
        });
        Ok(())
    }

    fn verify(
        &mut self,
        chap: &Chap,
        proof: &Response,
        answer: &mut Answer,
    ) -> Result<(), Refusal> {
        let Proof::Challenged(challenge) = &self.proof else {
            return Err(Refusal::Authentication);
        };
        let name = proof.name.ok_or(Refusal::MissingParameter)?;
        let response = proof.response.ok_or(Refusal::MissingParameter)?;
        let response = parse_binary(response).ok_or(Refusal::InitiatorError)?;
        challenge
            .verify(&chap.initiator, name, &response)
            .map_err(|_| Refusal::Authentication)?;
        if proof.identifier.is_some() || proof.challenge.is_some() {
            // The initiator wants proof, too: with a secret of the target's, or not at all.
            let own = chap.target.as_ref().ok_or(Refusal::Authentication)?;
            prove(challenge, own, proof, answer)?;
        }
        self.proof = Proof::Proven;
        Ok(())
    }
}

fn prove(
    asked: &Challenge,
    own: &Credentials,
    proof: &Response,
    answer: &mut Answer,
) -> Result<(), Refusal> {
    let identifier = proof.identifier.ok_or(Refusal::MissingParameter)?;
    let identifier = parse_number(identifier)
        .and_then(|number| u8::try_from(number).ok())
        .ok_or(Refusal::InitiatorError)?;
    let challenge = proof.challenge.ok_or(Refusal::MissingParameter)?;
    let challenge = parse_binary(challenge).ok_or(Refusal::InitiatorError)?;
    let response = asked
        .answer(own, identifier, &challenge)
        .map_err(|_| Refusal::Authentication)?;
    answer.push("CHAP_N", &own.name);
    answer.push("CHAP_R", &hexadecimal(&response));
    Ok(())
}

/// The initiator's third step.
struct Response<'a> {
    name: Option<&'a str>,
    response: Option<&'a str>,
    identifier: Option<&'a str>,
    challenge: Option<&'a str>,
}

impl Response<'_> {
    fn is_any(&self) -> bool {
        let parts = [self.name, self.response, self.identifier, self.challenge];
        parts.iter().any(Option::is_some)
    }
}
