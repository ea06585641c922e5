"""From runs to tables and pictures: ours beside the paper's."""
