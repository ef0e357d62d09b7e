//! Products.

mod change;
mod list;

pub(super) use list::AVAILABILITIES;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use list::Cursor;

use ordermill_domain::stock::Stock;
use ordermill_schemas::products::ProductCreated;
use ordermill_store::products::{self, StockedProduct};

use crate::product_cache::Found;
use crate::routes::prelude::*;

/// The routes of products.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    group(
        "Products",
        OpenApiRouter::new()
            .routes(routes!(create_product))
            .routes(routes!(get_product))
            .routes(routes!(list::list_products))
            .routes(routes!(change::change_product)),
    )
}

/// A product to be added.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewProduct {
    /// The name.
    #[schema(example = "Green tea", min_length = 1, max_length = 200)]
    name: String,
    /// What it is; may be empty.
    #[schema(example = "First flush, 100 g", max_length = 10_000)]
    description: String,
    /// The category, in any case; it is kept in upper case.
    #[schema(example = "food", min_length = 1, max_length = 64)]
    category: String,
    /// The price, in the minor unit.
    #[schema(value_type = i64, example = 9_000, minimum = 0, maximum = 1_000_000_000)]
    price: Whole,
    /// How many there are.
    #[schema(value_type = i64, example = 100, minimum = 0, maximum = 1_000_000_000)]
    stock: Whole,
}

impl NewProduct {
    /// The same with its category in upper case.
    fn check(mut self) -> Result<NewProduct, Problem> {
        self.category = self.category.to_uppercase();
        Checks::all(|checks| {
            checks.text("name", &self.name, &limits::NAME_LENGTH);
            checks.text("description", &self.description, &limits::DESCRIPTION_LENGTH);
            checks.text("category", &self.category, &limits::CATEGORY_LENGTH);
            checks.number("price", self.price.0, &limits::PRICE);
            checks.number("stock", self.stock.0, &limits::STOCK);
        })?;
        Ok(self)
    }
}

/// Whether a product can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum ProductStatus {
    /// It can.
    OnSale,
    /// It can when there is stock again.
    SoldOut,
    /// It can't.
    Withdrawn,
}

impl ProductStatus {
    /// The status of a product that was withdrawn or not and has that much stock.
    pub(super) fn of(withdrawn: bool, stock: i64) -> ProductStatus {
        match (withdrawn, stock) {
            (true, _) => ProductStatus::Withdrawn,
            (false, 1..) => ProductStatus::OnSale,
            (false, _) => ProductStatus::SoldOut,
        }
    }
}

view! {
    /// A product.
    #[schema(as = Product)]
    pub(super) struct ProductView from row: StockedProduct {
        /// The product.
        product_id: Uuid,
        /// The name.
        #[schema(example = "Green tea")]
        name: String = row.product.name,
        /// What it is.
        #[schema(example = "First flush, 100 g")]
        description: String = row.product.description,
        /// The category, in upper case.
        #[schema(example = "FOOD")]
        category: String = row.product.category,
        /// The price, in the minor unit.
        #[schema(value_type = i64, example = 9_000)]
        price: Money = row.product.price,
        /// How many can still be ordered.
        #[schema(example = 100)]
        stock: i64,
        /// Whether it can be ordered.
        status: ProductStatus = ProductStatus::of(row.product.withdrawn, row.stock),
        /// When it was added.
        created_at: Timestamp = row.product.created_at,
        /// When its description or price was last changed, or when it was withdrawn or put on sale again.
        updated_at: Timestamp = row.product.updated_at,
    }
}

type CreateProductRequest = Keyed<Admin, (), NewProduct>;

/// Add a product (administrators)
#[utoipa::path(
    post,
    path = "/v1/products",
    request_body = NewProduct,
    responses(
        (status = 201, description = "Added", body = ProductView,
            headers(("Location" = String, description = "The product"))),
        Problems<(CreateProductRequest, code::ValidationFailed)>,
    ),
)]
async fn create_product(
    State(api): State<Api>,
    Keyed { context, request, body, .. }: CreateProductRequest,
) -> Result<Answer, Problem> {
    let product = body.check()?;
    api.decide_once(request, context, Keys::default(), move |state: &mut Stock| {
        let product_id = Uuid::now_v7();
        let NewProduct { name, description, category, price: Whole(price), stock } = product.clone();
        let decided =
            state.create(ProductCreated { product_id, name, description, category, price }, stock.0);
        let created = StockedProduct::in_state(state, product_id).ok_or_else(Problem::internal)?;
        let location = Some(format!("/v1/products/{product_id}"));
        Ok((decided, first_answer(201, location, &ProductView::from(created))?))
    })
    .await
}

/// Show a product
///
/// `stock` is exact as of the request.
#[utoipa::path(
    get,
    path = "/v1/products/{product_id}",
    responses((status = 200, description = "The product", body = ProductView), Problems<Id<path::Product>>),
)]
async fn get_product(
    State(api): State<Api>,
    Id(product_id, _): Id<path::Product>,
) -> Result<JsonAnswer<ProductView>, Problem> {
    let product = find(&api, product_id).await?;
    product.map(|row| JsonAnswer(row.into())).ok_or_else(path::unknown::<path::Product>)
}

/// A product, with what rarely changes from memory where that is sound. The stock is always read.
async fn find(api: &Api, product_id: Uuid) -> Result<Option<StockedProduct>, sqlx::Error> {
    let pool = &api.journal.pool;
    match api.product_cache.find(product_id) {
        Found::Known(known) => {
            let stock = ordermill_store::stock::on_hand(pool, product_id).await?;
            Ok(stock.map(|stock| StockedProduct { stock, ..StockedProduct::clone(&known) }))
        }
        Found::Unknown(ticket) => {
            let row = products::find(pool, product_id).await?;
            if let Some(row) = &row {
                api.product_cache.keep(&ticket, row);
            }
            Ok(row)
        }
        Found::Bypassed => products::find(pool, product_id).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tea() -> NewProduct {
        NewProduct {
            name: "Green tea".to_owned(),
            description: String::new(),
            category: "straße".to_owned(),
            price: Whole(9_000),
            stock: Whole(0),
        }
    }

    #[test]
    fn a_category_is_kept_in_upper_case_and_measured_so() {
        assert_eq!(tea().check().unwrap().category, "STRASSE");
        let grows = NewProduct { category: "ß".repeat(33), ..tea() };
        assert!(grows.check().is_err());
    }

    #[test]
    fn every_field_that_is_out_of_range_is_named() {
        let wrong = NewProduct {
            name: String::new(),
            description: "\0".to_owned(),
            category: " ".to_owned(),
            price: Whole(-1),
            stock: Whole(1_000_000_001),
        };
        let problem = format!("{:?}", wrong.check().unwrap_err());
        assert!(problem.contains("out of range: name, description, category, price, stock"), "{problem}");
    }

    #[test]
    fn the_status_says_whether_it_can_be_ordered() {
        let status = |stock, withdrawn| ProductStatus::of(withdrawn, stock);
        assert_eq!(status(1, false), ProductStatus::OnSale);
        assert_eq!(status(0, false), ProductStatus::SoldOut);
        assert_eq!(status(1, true), ProductStatus::Withdrawn);
    }
}
