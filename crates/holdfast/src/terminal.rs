//! The terminal that a person types at.

use std::io::{Stdin, stdin};

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

/// A terminal that behaves in another way, until this is dropped.
pub struct Changed {
    terminal: Stdin,
    before: Termios,
    when: SetArg,
}

impl Changed {
    /// Changes how the terminal of this program behaves, `when` it has shown what it is to show; it is changed back likewise.
    ///
    /// # Errors
    /// If the input is no terminal.
    pub fn by(when: SetArg, change: impl FnOnce(&mut Termios)) -> nix::Result<Self> {
        let terminal = stdin();
        let before = tcgetattr(&terminal)?;
        let mut now = before.clone();
        change(&mut now);
        tcsetattr(&terminal, when, &now)?;
        Ok(Changed { terminal, before, when })
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        // Nothing is left to be done about a terminal that has gone away.
        let _ = tcsetattr(&self.terminal, self.when, &self.before);
    }
}
