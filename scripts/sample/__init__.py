"""The sample task: everyday questions in English and Chinese, answered warmly and rightly, or not."""
