"""The browser app. The only package that imports gradio."""
