// SPDX-License-Identifier: Apache-2.0

// Shows the contract. Nothing is remembered (no persistAuthorization), nothing is
// taken from this page's address (no queryConfig), nobody else is asked (no validator).
const at = document.getElementById("contract");
SwaggerUIBundle({
  url: at.dataset.contract,
  dom_id: "#contract",
  deepLinking: true,
  persistAuthorization: false,
  queryConfigEnabled: false,
  validatorUrl: null,
  supportedSubmitMethods: at.dataset.try.split(" ").filter(Boolean),
});
