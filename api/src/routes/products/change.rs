//! Changing what a product is, what it costs and whether it can be ordered.

use ordermill_domain::products::{self, Product};
use ordermill_domain::stock::{Shelf, Stock};
use ordermill_store::products::StockedProduct;

use super::ProductView;
use crate::routes::prelude::*;

/// What is to become of a product; what is left out stays. At least one member must be there.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ProductChange {
    /// The name.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200)]
    name: Option<String>,
    /// What it is; may be empty.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = String, required = false, max_length = 10_000)]
    description: Option<String>,
    /// The category, in any case; it is kept in upper case.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 64)]
    category: Option<String>,
    /// The price, in the minor unit. Orders that were accepted keep theirs.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = i64, required = false, example = 8_500, minimum = 0, maximum = 1_000_000_000)]
    price: Option<Whole>,
    /// `true`: it can't be ordered any more. `false`: it can again.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = bool, required = false)]
    withdrawn: Option<bool>,
}

impl ProductChange {
    /// What is to be changed, with the category in upper case.
    fn check(self) -> Result<products::ProductChange, Problem> {
        let change = products::ProductChange {
            name: self.name,
            description: self.description,
            category: self.category.map(|category| category.to_uppercase()),
            price: self.price.map(|Whole(price)| price),
            withdrawn: self.withdrawn,
        };
        Checks::all(|checks| {
            if change == products::ProductChange::default() {
                let detail = "must have at least one of name, description, category, price, withdrawn";
                checks.refuse("body", "EMPTY", detail);
            }
            checks.optional_text("name", change.name.as_ref(), &limits::NAME_LENGTH);
            checks.optional_text("description", change.description.as_ref(), &limits::DESCRIPTION_LENGTH);
            checks.optional_text("category", change.category.as_ref(), &limits::CATEGORY_LENGTH);
            if let Some(price) = change.price {
                checks.number("price", price, &limits::PRICE);
            }
        })?;
        Ok(change)
    }
}

/// Change a product (administrators)
///
/// What is left out stays as it is. The same limits hold as for a new product.
#[utoipa::path(
    patch,
    path = "/v1/products/{product_id}",
    responses(
        (status = 200, description = "The product as it is now", body = ProductView),
        Problems<(Admin, Id<path::Product>, Json<ProductChange>, code::ValidationFailed)>,
    ),
)]
pub(super) async fn change_product(
    State(api): State<Api>,
    Admin(caller): Admin,
    Id(product_id, _): Id<path::Product>,
    context: RequestContext,
    Json { value, .. }: Json<ProductChange>,
) -> Result<JsonAnswer<ProductView>, Problem> {
    let wanted = value.check()?;
    let (mut keys, origin) = (Keys::of(Product::NOUN, product_id), context.origin(caller.name()));
    keys.add(Shelf::NOUN, product_id);
    let change = move |state: &mut Stock| {
        StockedProduct::in_state(state, product_id).ok_or_else(path::unknown::<path::Product>)?;
        let decided = state.describe(product_id, wanted.clone());
        Ok((decided, StockedProduct::in_state(state, product_id).ok_or_else(Problem::internal)?))
    };
    let worker = api.clone();
    // What was written is known to the cache also where the client goes away.
    let work = async move {
        let row = worker.decide(keys, origin, change).await?;
        worker.product_cache.wrote(&row);
        Ok(row)
    };
    Ok(JsonAnswer(api.uninterrupted(work).await?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<ProductChange, serde_json::Error> {
        serde_json::from_str(body)
    }

    #[test]
    fn a_category_is_kept_in_upper_case() {
        let change = read(r#"{"category": "straße", "price": 0}"#).unwrap().check().unwrap();
        assert_eq!((change.category.as_deref(), change.price), (Some("STRASSE"), Some(0)));
    }

    #[test]
    fn a_change_says_what_is_to_change() {
        let problem = format!("{:?}", read("{}").unwrap().check().unwrap_err());
        assert!(problem.contains("EMPTY"), "{problem}");
        for member in ["name", "description", "category", "price", "withdrawn"] {
            assert!(read(&format!(r#"{{"{member}": null}}"#)).is_err(), "{member}");
        }
    }

    #[test]
    fn every_field_that_is_out_of_range_is_named() {
        let wrong = r#"{"name": " ", "description": "\u0000", "category": "", "price": 1000000001}"#;
        let problem = format!("{:?}", read(wrong).unwrap().check().unwrap_err());
        assert!(problem.contains("out of range: name, description, category, price\""), "{problem}");
    }
}
