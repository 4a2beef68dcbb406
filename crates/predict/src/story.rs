//! Phases that follow each other or go on at once, from the cut to the clocks' ends.

use serde::Serialize;

use crate::span::Span;

/// A part of the time until all is well again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phase {
    /// What happens.
    pub name: &'static str,
    /// When it begins, counted from the cut.
    pub begins: Span,
    /// How long it takes.
    pub takes: Span,
    /// When it is over, counted from the cut.
    pub ends: Span,
    /// What it comes from: settings with their values and files.
    pub settings: Vec<String>,
    /// How its times follow from them.
    pub why: &'static str,
    /// The phase that it waits for.
    #[serde(skip)]
    after: Option<usize>,
}

/// How long somebody waits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Clock {
    /// What somebody waits for.
    pub name: &'static str,
    /// How long, counted from the cut.
    #[serde(flatten)]
    pub span: Span,
    /// The longest of the phases that it waits for.
    pub dominated_by: &'static str,
}

/// A moment: when, and after which phase.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moment {
    span: Span,
    after: Option<usize>,
}

impl Moment {
    /// Both have come.
    pub(crate) fn and(self, other: Moment) -> Moment {
        let later = if other.span.typical_ms > self.span.typical_ms { other } else { self };
        Moment { span: self.span.later(other.span), after: later.after }
    }
}

/// All that follows from a cut.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Story {
    pub(crate) phases: Vec<Phase>,
    pub(crate) clocks: Vec<Clock>,
}

impl Story {
    /// Tells a phase, and when it is over.
    pub(crate) fn phase(
        &mut self,
        begins: Moment,
        name: &'static str,
        takes: Span,
        settings: Vec<String>,
        why: &'static str,
    ) -> Moment {
        let ends = begins.span + takes;
        self.phases.push(Phase {
            name,
            begins: begins.span,
            takes,
            ends,
            settings,
            why,
            after: begins.after,
        });
        Moment { span: ends, after: Some(self.phases.len() - 1) }
    }

    /// Stops a clock.
    pub(crate) fn clock(&mut self, name: &'static str, at: Moment) {
        let chain = std::iter::successors(at.after, |place| self.phases[*place].after);
        let longest = chain.map(|place| &self.phases[place]).max_by_key(|phase| phase.takes.typical_ms);
        let dominated_by = longest.map_or("nothing", |phase| phase.name);
        self.clocks.push(Clock { name, span: at.span, dominated_by });
    }

    /// What all clocks together typically show: what a change is judged by.
    pub(crate) fn typical_sum(&self) -> u64 {
        self.clocks.iter().fold(0, |sum, clock| sum.saturating_add(clock.span.typical_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_dominated_by_the_longest_phase_that_it_waits_for() {
        let mut story = Story::default();
        let short = story.phase(Moment::default(), "short", Span::new(1, 2, 30), vec![], "");
        let long = story.phase(Moment::default(), "long", Span::fixed(5), vec![], "");
        let next = story.phase(long.and(short), "next", Span::fixed(1), vec![], "");
        story.clock("both", next);
        story.clock("one", short);
        let told: Vec<_> = story.clocks.iter().map(|clock| (clock.dominated_by, clock.span)).collect();
        assert_eq!(told, [("long", Span::new(6, 6, 31)), ("short", Span::new(1, 2, 30))]);
    }
}
