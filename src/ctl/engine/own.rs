// SPDX-License-Identifier: Apache-2.0
//! What tnsctl has written, and whether it still is what it was: whole files with a first line that says so, and blocks
//! between two lines in files of others.

/// What a first line of ours begins with.
const HEAD: &str = "# Written by `tnsctl enable ";
/// The two lines around a block.
const BEGIN: &str = "# tns-shim: begin. Written by `tnsctl enable ";
const END: &str = "# tns-shim: end";
/// In the first of them, where the text before had no end of line.
const GLUED: &str = " The line before had no end.";

/// Who has written a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// tnsctl, which made so many folders for it.
    Ours {
        folders: usize,
    },
    /// tnsctl, and then somebody else.
    Changed,
    Foreign,
}

/// A whole file with that content.
pub(super) fn sealed(engine: &str, folders: usize, body: &str) -> String {
    let sum = sum(body);
    format!("{HEAD}{engine}`; `tnsctl disable {engine}` removes it. Sum {sum:016x}, folders {folders}.\n{body}")
}

/// Who has written a file with that content.
pub(super) fn whose(bytes: &[u8]) -> Whose {
    let Ok(text) = std::str::from_utf8(bytes) else { return Whose::Foreign };
    let Some((head, body)) = text.split_once('\n').filter(|(head, _)| head.starts_with(HEAD)) else {
        return Whose::Foreign;
    };
    let numbers = head.split_once(" Sum ").and_then(|(_, rest)| rest.strip_suffix('.')?.split_once(", folders "));
    match numbers.and_then(|(sum, folders)| Some((u64::from_str_radix(sum, 16).ok()?, folders.parse().ok()?))) {
        Some((said, folders)) if said == sum(body) => Whose::Ours { folders },
        _ => Whose::Changed,
    }
}

/// `text` with a block at its end.
pub(super) fn with_block(text: &str, engine: &str, body: &str) -> String {
    let body = body.trim_end();
    let glued = !text.is_empty() && !text.ends_with('\n');
    let (end_of_line, remark) = if glued { ("\n", GLUED) } else { ("", "") };
    let sum = sum(body);
    format!(
        "{text}{end_of_line}{BEGIN}{engine}`; `tnsctl disable {engine}` takes it out. Sum {sum:016x}.{remark}\n{body}\n{END}\n"
    )
}

/// `text` without the block, or as it is if there is none.
///
/// # Errors
/// Somebody has changed the block: this sentence says so.
pub(super) fn without_block(text: &str) -> Result<String, &'static str> {
    let begins = |line: &str| line.starts_with(BEGIN);
    let Some(start) = line_starts(text).find(|at| begins(&text[*at..])) else { return Ok(text.to_owned()) };
    let changed = "the lines between `# tns-shim: begin` and `# tns-shim: end` were changed since tnsctl wrote them";
    let block = &text[start..];
    let (head, rest) = block.split_once('\n').ok_or(changed)?;
    let (body, after) = match rest.split_once(&format!("\n{END}\n")) {
        Some(parts) => parts,
        // Somebody's editor takes the last end of line away.
        None => (rest.strip_suffix(&format!("\n{END}")).ok_or(changed)?, ""),
    };
    let said = head.split_once(" Sum ").and_then(|(_, rest)| rest.split('.').next());
    if said != Some(format!("{:016x}", sum(body)).as_str()) || line_starts(after).any(|at| begins(&after[at..])) {
        return Err(changed);
    }
    let before = &text[..start];
    // What stands behind it now needs the end of line.
    let before =
        if head.ends_with(GLUED) && after.is_empty() { before.strip_suffix('\n').unwrap_or(before) } else { before };
    Ok(format!("{before}{after}"))
}

fn line_starts(text: &str) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1))
}

/// FNV-1a: against accidents, not against malice.
fn sum(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file_is_known_by_its_first_line_and_its_sum() {
        let file = sealed("podman", 2, "[engine]\n");
        assert!(
            file.starts_with("# Written by `tnsctl enable podman`; `tnsctl disable podman` removes it. Sum "),
            "{file}"
        );
        assert_eq!(whose(file.as_bytes()), Whose::Ours { folders: 2 });
        assert_eq!(whose(format!("{file}\n").as_bytes()), Whose::Changed);
        assert_eq!(whose(file.replace("engine]", "containers]").as_bytes()), Whose::Changed);
        assert_eq!(whose(file.replace(", folders 2.", "").as_bytes()), Whose::Changed);
        assert_eq!(whose(format!("\n{file}").as_bytes()), Whose::Foreign);
        assert_eq!(whose(b"\xff"), Whose::Foreign);
        assert_eq!(whose(b""), Whose::Foreign);
    }

    #[test]
    fn a_block_goes_and_leaves_what_was_there() {
        for text in ["", "version = 2", "version = 2\n", "version = 2\n\n\n", "a = 1\r\n", "a = 1\r\n[b]"] {
            let with = with_block(text, "containerd", "[x]\n  y = 1\n\n");
            assert!(with.contains("\n[x]\n  y = 1\n# tns-shim: end\n"), "{with}");
            assert_eq!(without_block(&with).as_deref(), Ok(text));
            assert_eq!(without_block(with.trim_end()).as_deref(), Ok(text));
            // What somebody has added behind it stays, on lines of its own.
            let added = without_block(&format!("{with}# mine\n")).unwrap();
            assert_eq!(added.lines().last(), Some("# mine"));
            assert!(added.starts_with(text));
            assert!(without_block(&with.replace("y = 1", "y = 2")).is_err());
            assert!(without_block(&with.replace("# tns-shim: end\n", "")).is_err());
            assert!(without_block(&format!("{with}{with}")).is_err());
            assert_eq!(without_block(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn the_sum_is_the_published_one() {
        assert_eq!(
            (sum(""), sum("a"), sum("foobar")),
            (0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8)
        );
    }
}
