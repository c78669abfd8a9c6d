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

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn nothing_but_what_is_there_reaches_a_terminal() {
        assert_eq!(printable("sleep 10 ä", 20), "sleep 10 ä");
        assert_eq!(printable("a\u{1b}[2Jb\nc", 20), "a\\u{1b}[2Jb\\nc");
        assert_eq!(printable("a\u{202e}b\u{200b}", 20), "a\\u{202e}b\\u{200b}");
        assert_eq!(printable("abcdef", 3), "abc…");
    }
}
