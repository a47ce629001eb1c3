// SPDX-License-Identifier: Apache-2.0

// Shows the contract. Nothing is remembered (no persistAuthorization), nothing is
// taken from this page's address (no queryConfig), nobody else is asked (no validator).
const at = document.getElementById("contract");
const tries = at.dataset.try.split(" ").filter(Boolean);
// Where nothing can be tried, nobody is asked for a token either.
const nothing = () => () => null;
const reading = () => ({ wrapComponents: { AuthorizeBtnContainer: nothing, authorizeOperationBtn: nothing } });
SwaggerUIBundle({
  url: at.dataset.contract,
  dom_id: "#contract",
  deepLinking: true,
  persistAuthorization: false,
  queryConfigEnabled: false,
  validatorUrl: null,
  supportedSubmitMethods: tries,
  plugins: tries.length ? [] : [reading],
  defaultModelsExpandDepth: 0,
});
