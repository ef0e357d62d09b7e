//! The little of SVG that the drawings need.

use std::fmt::{Display, Write as _};

/// Colours that are told apart on white and on black, also by who sees no red or no green.
const COLOURS: [&str; 5] = ["#0b7fd4", "#e08a00", "#1a9e6b", "#c94fa0", "#8b8b8b"];
/// Text and lines follow the page: dark on light, light on dark.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-size:16px;font-weight:600}\
    .line{stroke:#d0d7de}.end{text-anchor:end}.middle{text-anchor:middle}\
    @media (prefers-color-scheme: dark){text{fill:#e6edf3}.line{stroke:#444c56}}";

/// A drawing in the making.
#[derive(Debug)]
pub(super) struct Svg(String);

impl Svg {
    pub(super) fn new(width: f64, height: f64, title: &str) -> Svg {
        let head = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
             <title>{}</title>\n<style>{STYLE}</style>\n",
            escaped(title)
        );
        let mut svg = Svg(head);
        svg.text(16.0, 26.0, "title", title);
        svg
    }

    /// Text at a place; the class says which of its ends is there.
    pub(super) fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        self.add(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escaped(text)));
    }

    /// A thin line of the scale.
    pub(super) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.add(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"line\"/>"
        ));
    }

    pub(super) fn rect(&mut self, (x, y): (f64, f64), width: f64, height: f64, colour: usize) {
        let colour = COLOURS[colour % COLOURS.len()];
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
        ));
    }

    /// Points, and what joins them.
    pub(super) fn path(&mut self, points: &[(f64, f64)], colour: usize) {
        let colour = COLOURS[colour % COLOURS.len()];
        let joined: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let joined = joined.join(" ");
        self.add(format_args!(
            "<polyline points=\"{joined}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        ));
        for (x, y) in points {
            self.add(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"));
        }
    }

    pub(super) fn drawn(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }

    fn add(&mut self, element: impl Display) {
        // Writing into a string does not fail.
        let _ = writeln!(self.0, "{element}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_can_not_become_an_element() {
        let mut svg = Svg::new(10.0, 10.0, "a < b");
        svg.text(1.0, 2.0, "end", "c & d");
        let drawn = svg.drawn();
        assert!(drawn.contains("<title>a &lt; b</title>") && drawn.contains(">c &amp; d</text>"), "{drawn}");
    }
}
