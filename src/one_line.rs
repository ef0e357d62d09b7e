//! An error as an operator reads it.

/// An error with its causes. Some say their cause themselves; it is not said twice.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(|cause| cause.to_string().replace('\n', " ")) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_error_is_one_line_with_each_cause_once() {
        let error =
            anyhow!("port 1 is\nclosed").context("can't connect: port 1 is closed").context("no Kafka");
        assert_eq!(one_line(&error), "no Kafka: can't connect: port 1 is closed");
    }
}
