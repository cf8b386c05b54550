"""The walls of D4RL's three mazes, which its ants and its balls share."""

from __future__ import annotations

MAPS = {
    "umaze": ("#####", "#   #", "### #", "#   #", "#####"),
    "medium": (
        "########",
        "#  ##  #",
        "#  #   #",
        "##   ###",
        "#  #   #",
        "# #  # #",
        "#   #  #",
        "########",
    ),
    "large": (
        "############",
        "#    #     #",
        "# ## # # # #",
        "#      #   #",
        "# #### ### #",
        "#  # #     #",
        "## # # # ###",
        "#  #   #   #",
        "############",
    ),
}
"""Rows from the top; `#` is a wall."""
