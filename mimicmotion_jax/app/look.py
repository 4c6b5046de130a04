"""Look of the studio: theme and style sheet, without fonts or scripts from the network."""

from gradio import themes


def theme() -> themes.Base:
    """Return the theme: colours of the pages, fonts of the system."""
    system = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
    accent = themes.Color(
        "#fdf5f0", "#fae6da", "#f4cdb6", "#ecab88", "#e08557", "#cf6a38", "#b4532a", "#954423", "#773820", "#5f301e",
        "#33180e",
    )  # fmt: skip
    return themes.Base(
        primary_hue=accent, neutral_hue="slate", font=system, font_mono=("ui-monospace", "Menlo", "monospace"),
        radius_size="md",
    ).set(button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700",
          button_primary_text_color="white", body_text_color_subdued="*neutral_600",
          block_info_text_color="*neutral_600", input_placeholder_color="*neutral_500")  # fmt: skip


CSS = """
.gradio-container { max-width: 84rem !important; margin: 0 auto !important; }
#header h1 { font-size: 1.6rem; font-weight: 700; margin: .3rem 0; letter-spacing: -.01em; }
#header a { color: var(--primary-600); text-decoration: underline; }
.quiet { opacity: .75; }
iframe.preflight { width: 100%; border: 1px solid var(--border-color-primary); border-radius: .6rem; min-height: 20rem;
  max-height: 72rem; }
@media (max-width: 48rem) { iframe.preflight { max-height: 40rem; } }
.hint { border: 1px dashed var(--border-color-primary); border-radius: .6rem; padding: 2rem 1rem; text-align: center;
  color: var(--body-text-color-subdued); }
.note, .alert { border-left: 4px solid var(--primary-600); padding: .6rem .9rem; margin: .3rem 0; border-radius: .3rem;
  background: var(--background-fill-secondary); overflow-wrap: anywhere; }
.alert { border-color: #c53030; background: #fdecec; color: #7a1717; }
.dark .alert { background: #3a1b1b; color: #ffc9c9; }
.note progress { width: 100%; height: .5rem; margin-top: .4rem; accent-color: var(--primary-600); display: block; }
#motion video { max-height: 13.5rem; }
#result, #comparison { min-width: min(100%, 15rem) !important; }
#result video, #comparison video { max-height: 28rem; max-width: 100%; min-width: 0; }
@media (max-width: 48rem) { #result, #comparison { flex: 1 1 100% !important; width: 100%; max-width: 100%; } }
#header a { margin: 0; padding: 0; }
#gallery .grid-container { grid-template-columns: repeat(auto-fill, minmax(7rem, 10rem)) !important; }
#gallery { min-width: 0 !important; overflow: hidden; }
[id^=option-] span { white-space: normal; overflow-wrap: anywhere; }
#settings * { overflow-wrap: anywhere; white-space: normal; }
#preview img { image-rendering: auto; object-fit: contain; }
:focus-visible { outline: 2px solid var(--primary-600); outline-offset: 2px; }
"""
