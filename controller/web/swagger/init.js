// Ours. Kept out of the page so that the page's content policy can forbid inline scripts.
window.addEventListener("load", () => {
  window.ui = SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    docExpansion: "list",
    displayRequestDuration: true,
    tryItOutEnabled: true,
    validatorUrl: null,
    // Whoever is logged in at the dashboard may try things here too; no foreign page can send this.
    requestInterceptor: (request) => {
      request.headers["x-kvnet-csrf"] = "1";
      return request;
    },
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
  });
});
