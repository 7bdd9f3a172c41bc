//! Small damage to an input that was well made.

use ankole_engine::fuzzing::{Dice, Target};

/// Inputs do not grow beyond this.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// Damages of one input.
const DAMAGES_MAX: usize = 6;

/// Damages the input in a few places, or leaves one in four as it is.
pub(super) fn mutate(input: &mut Vec<u8>, target: &Target, dice: &mut Dice<'_>) {
    if dice.once_in(4) {
        return;
    }
    for _ in 0..=dice.below(DAMAGES_MAX) {
        damage(input, target, dice);
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn damage(input: &mut Vec<u8>, target: &Target, dice: &mut Dice<'_>) {
    let at = dice.below(input.len());
    match dice.below(9) {
        0 => change(input, at, |byte| byte ^ 0x01),
        1 => {
            let bit = dice.below(8);
            change(input, at, |byte| byte ^ (1 << bit));
        }
        2 => {
            let new = dice.byte();
            change(input, at, |_| new);
        }
        3 => change(input, at, |byte| byte.wrapping_add(1)),
        4 => change(input, at, |byte| byte.wrapping_sub(1)),
        5 => {
            let end = (at + 1 + dice.below(16)).min(input.len());
            input.drain(at.min(end)..end);
        }
        6 => {
            let end = (at + 1 + dice.below(64)).min(input.len());
            let again = input.get(at..end).unwrap_or_default().to_vec();
            let place = dice.below(input.len() + 1);
            input.splice(place..place, again);
        }
        7 => {
            let token = dice.pick(target.tokens);
            input.splice(at..at, token.iter().copied());
        }
        _ => {
            let token = dice.pick(target.tokens);
            let end = (at + token.len()).min(input.len());
            input.splice(at.min(end)..end, token.iter().copied());
        }
    }
}

fn change(input: &mut [u8], at: usize, how: impl FnOnce(u8) -> u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte = how(*byte);
    }
}
