// SPDX-License-Identifier: Apache-2.0
//! Text that others have chosen, made fit for logs and terminals.

/// `text` on one line and as it really is: control characters, and Unicode's invisible and direction-changing ones, by
/// their numbers; cut after `most` characters.
pub fn printable(text: &str, most: usize) -> String {
    let misleads = |letter: char| {
        let invisible =
            matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        invisible || letter.is_control()
    };
    let mut shown = String::new();
    for letter in text.chars().take(most) {
        if misleads(letter) { shown.extend(letter.escape_default()) } else { shown.push(letter) }
    }
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

/// An error in which the kernel's reasons have their names instead of sentences: Podman looks for those anywhere in what a
/// runtime says, and takes them for errors about the container's own command.
pub fn for_engines(error: &str) -> String {
    let sentences =
        [("EACCES", "Permission denied", " (os error 13)"), ("ENOENT", "No such file or directory", " (os error 2)")];
    sentences.iter().fold(error.to_owned(), |error, (name, sentence, number)| {
        // As nix writes them, as the standard library does, and what is left.
        let forms = [format!("{name}: {sentence}"), format!("{sentence}{number}"), (*sentence).to_owned()];
        forms.iter().fold(error, |error, form| error.replace(form, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_takes_no_error_for_one_of_its_own() {
        for (errno, name) in [(nix::errno::Errno::EACCES, "EACCES"), (nix::errno::Errno::ENOENT, "ENOENT")] {
            assert_eq!(for_engines(&format!("read it: {}", std::io::Error::from(errno))), format!("read it: {name}"));
            assert_eq!(for_engines(&format!("enter it: {errno}")), format!("enter it: {name}"));
        }
        assert_eq!(for_engines("write it: EIO"), "write it: EIO");
    }

    #[test]
    fn nothing_but_what_is_there_reaches_a_terminal() {
        assert_eq!(printable("sleep 10 ä", 20), "sleep 10 ä");
        assert_eq!(printable("a\u{1b}[2Jb\nc", 20), "a\\u{1b}[2Jb\\nc");
        assert_eq!(printable("a\u{202e}b\u{200b}", 20), "a\\u{202e}b\\u{200b}");
        assert_eq!(printable("abcdef", 3), "abc…");
    }
}
