"""Where windows lie."""

from segjax.evaluation import views, window_grid


def test_windows_cover_the_view_and_end_inside():
    view = window_grid.of_image(views.parse("pspnet_ms_flip"), (375, 500), (375, 500))[0]
    assert view.rows.view == 192
    assert view.rows.starts == (-(473 - 192) // 2 + 1,)  # framed: 140 before, 141 after
    wide = window_grid.of_image(views.parse("single, tile=(473, 473)"), (500, 1200), (500, 1200))[0]
    assert wide.cols.starts == (0, 316, 632, 727)
    assert wide.rows.starts == (0, 27)
