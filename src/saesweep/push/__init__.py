"""SAEs uploaded to the Hugging Face hub, with a model card (docs/hub.md)."""
