//! Text from outside, as a terminal may show it.

/// Whether a character moves the cursor, changes the terminal or turns the direction of writing.
pub(crate) fn is_harmful(character: char) -> bool {
    let is_invisible = matches!(
        character,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    );
    character.is_control() || is_invisible
}

/// Text from outside as a terminal may show it: harmful characters as their numbers.
pub(crate) fn printable(text: &str) -> String {
    let shown = |character: char| match character {
        harmful if is_harmful(harmful) => harmful.escape_unicode().to_string(),
        harmless => harmless.to_string(),
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_change_the_terminal_is_shown_as_its_number() {
        assert_eq!(printable("초록 tea, 5 €"), "초록 tea, 5 €");
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{9b}d\u{202e}e"), r"a\u{1b}[2Jb\u{a}c\u{9b}d\u{202e}e");
    }
}
