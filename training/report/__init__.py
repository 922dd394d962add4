"""`har-report`: runs -> tables, claims, pictures, Markdown, HTML, model cards."""
