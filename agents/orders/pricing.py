"""Pricing: goods, volume discount, shipping and the value added tax of the country it goes to, in whole cents."""

from mesh import agent

from .events import CATALOGUE, OrderPlaced, OrderPriced

CURRENCY = "EUR"
DISCOUNTS_PERCENT = ((1_000, 15), (100, 10), (10, 5))
"""(units of one SKU from, percent off)."""
FREE_SHIPPING_CENTS_MIN = 10_000
TAX_PERCENT = {
    "AT": 20, "BE": 21, "BG": 20, "CY": 19, "CZ": 21, "DE": 19, "DK": 25, "EE": 22, "ES": 21, "FI": 25, "FR": 20,
    "GR": 24, "HR": 25, "HU": 27, "IE": 23, "IT": 22, "LT": 21, "LU": 17, "LV": 21, "MT": 18, "NL": 21, "PL": 23,
    "PT": 23, "RO": 19, "SE": 25, "SI": 22, "SK": 23,
}  # fmt: skip
"""Sales outside of these countries are exports and carry no tax."""
NOT_SERVED = frozenset({"KP", "IR", "SY", "CU"})
HOME = "DE"
SHIPPING_CENTS = {"home": (490, 120), "near": (990, 250), "far": (2_490, 900)}
"""Zone → (cents a shipment, cents for each kilogram begun)."""


@agent
async def price(order: OrderPlaced) -> OrderPriced:
    """Price what can be priced; say what cannot be sold."""
    country = order.country.strip().upper() or HOME
    problems = (
        [] if len(country) == 2 and country.isalpha() and country.isascii() else ["country is not ISO 3166 alpha-2"]
    )
    if country in NOT_SERVED:
        problems.append(f"no deliveries to {country}")
    goods = discount = weight_g = 0
    for sku, qty in order.quantities.items():
        product = CATALOGUE.get(sku)
        if product is None or qty < 1:
            problems.append(f"{sku or 'a line without sku'}: cannot be priced")
            continue
        amount = product.price_cents * qty
        goods += amount
        discount += amount * _discount_percent(qty) // 100
        weight_g += product.weight_g * qty
    if not order.lines:
        problems.append("nothing was ordered")
    shipping = _shipping_cents(country, goods - discount, weight_g)
    total = goods - discount + shipping
    percent = TAX_PERCENT.get(country, 0)
    return OrderPriced(
        order_id=order.order_id,
        ok=not problems,
        problems=problems,
        country=country,
        goods_cents=goods,
        discount_cents=discount,
        shipping_cents=shipping,
        tax_cents=(total * percent * 2 + 100 + percent) // (2 * (100 + percent)),
        total_cents=total,
        currency=CURRENCY,
        weight_g=weight_g,
    )


def _discount_percent(qty: int) -> int:
    return next((percent for units, percent in DISCOUNTS_PERCENT if qty >= units), 0)


def _shipping_cents(country: str, value_cents: int, weight_g: int) -> int:
    """By zone and weight; free at home and nearby from a value on."""
    zone = "home" if country == HOME else "near" if country in TAX_PERCENT else "far"
    if zone != "far" and value_cents >= FREE_SHIPPING_CENTS_MIN:
        return 0
    flat, each_kg = SHIPPING_CENTS[zone]
    return flat + each_kg * -(-weight_g // 1000)
