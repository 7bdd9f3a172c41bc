//! The bodies of the fuzz targets: any bytes in, an assertion that fails or nothing. Run by libFuzzer
//! (`engine/fuzz`, nightly) and by `ankole-chaos fuzz` (stable, a minute of every gate).

mod cdbs;
mod compose;
mod login_text;
mod pdus;
mod reservations;
mod session;

pub use compose::Dice;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As `cargo fuzz` and `ankole-chaos fuzz` call it.
    pub name: &'static str,
    /// Runs one input; panics when something is wrong.
    pub run: fn(&[u8]),
    /// Makes an input that gets past the first checks; what it is like is diced.
    pub compose: fn(&mut Dice<'_>) -> Vec<u8>,
    /// Bytes that mean something to it.
    pub tokens: &'static [&'static [u8]],
}

/// All of them.
pub const TARGETS: [Target; 5] = [
    Target {
        name: "pdus",
        run: pdus,
        compose: compose::pdus,
        tokens: compose::NUMBERS,
    },
    Target {
        name: "login_text",
        run: login_text,
        compose: compose::login_text,
        tokens: compose::KEYS,
    },
    Target {
        name: "cdbs",
        run: cdbs,
        compose: compose::cdbs,
        tokens: compose::NUMBERS,
    },
    Target {
        name: "session",
        run: session,
        compose: compose::session,
        tokens: compose::NUMBERS,
    },
    Target {
        name: "reservations",
        run: reservations,
        compose: compose::reservations,
        tokens: compose::NUMBERS,
    },
];

/// Any bytes as the stream of a connection.
pub fn pdus(data: &[u8]) {
    pdus::run(data);
}

/// Any text in login requests.
pub fn login_text(data: &[u8]) {
    login_text::run(data);
}

/// Commands of any bytes.
pub fn cdbs(data: &[u8]) {
    cdbs::run(data);
}

/// A whole connection.
pub fn session(data: &[u8]) {
    session::run(data);
}

/// Any bytes as a stored state.
pub fn reservations(data: &[u8]) {
    reservations::run(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64.
    fn numbers(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }
    }

    #[test]
    fn composed_inputs_are_accepted_by_every_target() {
        for target in TARGETS {
            for seed in 0..200 {
                let mut source = numbers(seed);
                (target.run)(&(target.compose)(&mut Dice::new(&mut source)));
            }
            (target.run)(&[]);
            (target.run)(&[0xff; 100]);
        }
    }
}
