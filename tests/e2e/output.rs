//! What commands do where nobody reads what they print, and where it can't be written.

use std::fs::File;

use crate::support::{Shop, closed_pipe};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_reader_has_gone_ends_without_a_word_and_a_full_disk_is_an_error() {
    let shop = Shop::new().await;
    for (arguments, failed) in [
        (&["keys", "wire", "secret"][..], 1),
        (&["keys", "wire", "list"], 1),
        (&["relay", "status"], 1),
        (&["relay", "status", "--json"], 1),
        (&["dlq", "list"], 2),
    ] {
        let output = shop.run_into(arguments, closed_pipe()).await;
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(141), &b""[..]), "{arguments:?}");
        let full_disk = File::options().write(true).open("/dev/full").unwrap();
        let output = shop.run_into(arguments, full_disk).await;
        let line = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(failed), "{arguments:?}: {line}");
        assert!(line.starts_with("ordermill: standard output can't be written: "), "{line}");
        assert!(line.contains("No space left") && line.lines().count() == 1, "{line}");
    }
}
