//! The terminal while `top` has it: taken whole, keys one by one, given back as it was.

use std::io::{IsTerminal, Read, Write};

use rustix::termios::{InputModes, LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// Whether somebody can press keys.
pub(super) fn has_keys() -> bool {
    std::io::stdin().is_terminal()
}

/// The terminal as it was, which it becomes again.
pub(super) struct Screen(Termios);

impl Screen {
    /// Takes the whole screen: keys come one by one, and what was there comes back in the end.
    ///
    /// Ctrl-C and Ctrl-\ are keys as well, so that none of them ends the program with the terminal
    /// taken; Ctrl-Z and Ctrl-S mean nothing, because a stopped picture would be taken for a live one.
    pub(super) fn take() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut modes = before.clone();
        modes
            .local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN);
        modes.input_modes.remove(InputModes::IXON);
        // From here on whatever fails gives it back.
        let screen = Self(before);
        tcsetattr(std::io::stdin(), OptionalActions::Now, &modes)?;
        let mut out = std::io::stderr();
        // xterm: the alternate screen; DEC: the cursor is hidden; ECMA-48: home, erase.
        out.write_all(b"\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J")?;
        out.flush()?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = std::io::stderr();
        let _shown = out.write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
        // What was typed and not yet read is for nobody: it must not reach the shell.
        let _same = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Keys as they are pressed. The thread ends with the process: a terminal cannot be stopped reading.
pub(super) fn listen() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut bytes) {
            if sender.blocking_send(bytes[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}
