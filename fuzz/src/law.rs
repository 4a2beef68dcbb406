//! Laws of what an input may cost: so much for each of its bytes, and no more than that when it grows.

use std::time::Duration;

use crate::cost::Cost;

/// How far a cost may outgrow its input: the power of its length. What is linear has 1, what is quadratic 2.
const POWER: f64 = 1.5;
/// Below these growth is not judged: what happens once weighs too much.
const FEW_BYTES: u64 = 1 << 20;
const SHORT: Duration = Duration::from_millis(60);
/// What a byte may take of a processor, in a build without optimisation on a slow machine.
const TIME_PER_BYTE: Duration = Duration::from_micros(20);
/// What any input may take.
const TIME: Duration = Duration::from_secs(3);

/// How many bytes may be allocated for an input.
#[derive(Debug, Clone, Copy)]
pub struct Law {
    /// For any input, however short.
    pub base: u64,
    /// For each of its bytes.
    pub per_byte: u64,
}

impl Law {
    /// Judges one input of `length` bytes.
    ///
    /// # Errors
    /// How it breaks the law.
    pub(crate) fn judge(&self, length: usize, cost: Cost) -> Result<(), String> {
        let most = self.base + self.per_byte * length as u64;
        if cost.bytes > most {
            let each = cost.bytes / length.max(1) as u64;
            return Err(format!(
                "{} bytes are allocated for {length}, {each} for each, where {most} are allowed",
                cost.bytes
            ));
        }
        // An input has fewer than 2^32 bytes.
        let most = TIME + TIME_PER_BYTE * length as u32;
        if cost.time > most {
            return Err(format!(
                "{length} bytes keep a processor busy for {:?}: more than {most:?}",
                cost.time
            ));
        }
        Ok(())
    }
}

/// Judges how the costs of an input grow with it: three lengths, each some twice the one before. Only what grows too fast from
/// each to the next is guilty: a step alone is a limit that was passed, or a table that was made.
///
/// # Errors
/// How they grow.
pub(crate) fn judge_growth(grown: &[(usize, Cost); 3]) -> Result<(), String> {
    let [(first, _), (second, _), (third, last)] = grown;
    if first * 3 > second * 2 || second * 3 > third * 2 {
        return Ok(());
    }
    let too_fast = |cost: &dyn Fn(&Cost) -> f64| {
        grown.windows(2).all(|pair| {
            let longer = pair[1].0 as f64 / pair[0].0.max(1) as f64;
            cost(&pair[1].1) > cost(&pair[0].1) * longer.powf(POWER)
        })
    };
    let lengths = format!("{first}, {second} and {third} bytes");
    let each = |cost: &dyn Fn(&Cost) -> String| {
        grown.iter().map(|(_, each)| cost(each)).collect::<Vec<_>>().join(", ")
    };
    if last.bytes > FEW_BYTES && too_fast(&|cost| cost.bytes as f64) {
        return Err(format!("for {lengths} {} are allocated", each(&|cost| cost.bytes.to_string())));
    }
    if last.time > SHORT && too_fast(&|cost| cost.time.as_secs_f64()) {
        return Err(format!("{lengths} take {} of a processor", each(&|cost| format!("{:?}", cost.time))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(cost: impl Fn(u64) -> u64) -> [(usize, Cost); 3] {
        [1, 2, 4].map(|times| {
            let length = 10_000 * times;
            let time = Duration::from_micros(cost(length) / 10);
            (length as usize, Cost { bytes: cost(length), time })
        })
    }

    #[test]
    fn what_grows_as_its_input_is_well_and_what_grows_faster_is_found() {
        assert_eq!(judge_growth(&grown(|n| 1000 * n)), Ok(()));
        assert_eq!(judge_growth(&grown(|n| 100 * n * n.ilog2() as u64)), Ok(()));
        assert_eq!(judge_growth(&grown(|n| if n > 10_000 { 1000 * n } else { 10 })), Ok(()), "a step");
        assert!(judge_growth(&grown(|n| n * n)).is_err());
        let busy = grown(|n| n * n).map(|(length, cost)| (length, Cost { bytes: 0, ..cost }));
        assert!(judge_growth(&busy).unwrap_err().contains("processor"));
    }

    #[test]
    fn what_costs_too_much_is_found() {
        let law = Law { base: 1000, per_byte: 10 };
        let cost = |bytes, seconds| Cost { bytes, time: Duration::from_secs(seconds) };
        assert_eq!(law.judge(100, cost(2000, 1)), Ok(()));
        assert!(law.judge(100, cost(2001, 1)).is_err());
        assert!(law.judge(100, cost(0, 4)).is_err());
    }
}
